"""How the book is built: executing pages, pairing notebooks, checking claims, drawing the pages."""
