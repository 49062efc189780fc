"""Where bugs come from beside a model: operators, histories, failed fixes."""
