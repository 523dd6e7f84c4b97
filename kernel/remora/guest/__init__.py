"""What runs inside a sandbox: it executes cells, calls and notebooks with IPython's own machinery.

Law: of ours it imports only wire, frames, errors and sync, and it starts on a bare Python ≥3.10. Nothing here decides anything
about sandboxes; that is the supervisor's, on the other end of the one socket.
"""
