"""What runs beside the three packages: locks, container files, configuration, and the stack without containers."""
