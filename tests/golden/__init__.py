"""Golden wire files: what every version wrote stays readable, and today's code writes its own."""
