"""What any program needs: errors, files, locks, processes, signals."""
