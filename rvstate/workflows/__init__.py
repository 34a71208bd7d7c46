"""The verbs: each reads the world through the doors, reasons, and acts."""
