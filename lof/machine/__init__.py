"""What this machine offers: devices, precisions, memory."""
