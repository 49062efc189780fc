"""What a project declares that it needs, read as text and installed from wheels."""
