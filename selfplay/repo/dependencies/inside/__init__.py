"""Programs and plugins that run inside a sandbox, beside what is installed there."""
