"""Where untrusted code runs: no network, fresh snapshot, bounded, and gone afterwards."""
