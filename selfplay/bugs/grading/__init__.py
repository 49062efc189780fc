"""From a fix patch to resolved or not, in fresh sandboxes."""
