"""Parts of HTML pages: templates, charts, players, pictures. Nothing here knows results."""
