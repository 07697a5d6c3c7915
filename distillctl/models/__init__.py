"""What is done with a model: features are taken, heads are put on, students are deployed."""
