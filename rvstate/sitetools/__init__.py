"""Languages of programs that sites and drivers bring along: text in, values out."""
