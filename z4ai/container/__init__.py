"""The `ZSTN` container, room by room; `z4ai.safetensors` is its door.

``zstn`` knows the bytes of the container and ``st_header`` those of a safetensors header;
``source`` and ``sink`` are where bytes come from and go to; ``encode`` and ``decode`` turn the
content of many tensors into frames and back, a wave of chunks at a time; ``small`` lets small
tensors share a frame; ``dedup`` finds equal tensors; ``reader`` and ``writer`` are the two classes
users meet.
"""
