"""The one-turn scaffold: what fits into a prompt, and the edit language of the answer."""
