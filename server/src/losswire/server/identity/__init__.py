"""Who calls: tokens, certificates, and what asks for them."""
