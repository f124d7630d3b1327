"""Find and outline defects in pictures of manufactured parts after seeing normal pictures only."""
