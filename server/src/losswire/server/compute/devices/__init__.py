"""What a device needs: copies, pinned memory, and knowing when it is lost."""
