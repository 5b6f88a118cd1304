"""`stoker up`: broker, server and worker on one machine, watched and restarted, without root."""
