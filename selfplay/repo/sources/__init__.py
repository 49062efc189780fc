"""From a source (git, sdist, folder, image) to a tree on disk."""
