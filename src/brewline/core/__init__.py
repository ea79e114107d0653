"""What every room builds on: errors, whole files, processes that end when they should, devices."""
