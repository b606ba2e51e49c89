"""One evaluation in many parts: the plan, the order of merging, and what is left to do."""
