"""The commands, one file each: argument parsing and rendering around the modules above."""
