"""Small evaluations of one skeleton computed together on a GPU, where each call of torch costs."""
