"""Statistical mediation of a measured mediator: Imai, Keele and Tingley, with what could overturn it."""
