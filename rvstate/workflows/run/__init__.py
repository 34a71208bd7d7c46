"""`rvstate run`: a project in front of the user becomes a job."""
