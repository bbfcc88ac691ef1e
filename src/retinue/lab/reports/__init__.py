"""What remains of a run of an experiment: its folder, its tables, its pictures, its page."""
