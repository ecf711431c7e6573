"""The report: one HTML file that says where an output stands and how it got there."""
