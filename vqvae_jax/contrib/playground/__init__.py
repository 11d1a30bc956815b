"""A widget of the report: change codes and see the decoded image."""
