"""Models of data and of codes: options, loss, sampling."""
