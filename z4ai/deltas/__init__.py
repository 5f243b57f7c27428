"""The model delta `Z4DM`, room by room; `z4ai.model_delta` is its door.

``records`` and ``z4dm`` know its bytes; ``models`` opens what may be a base, and tells bases
apart; ``references`` gathers what a tensor differs from; ``choose``, ``small``, ``blocks`` and
``encode`` make it; ``contents``, ``restore`` and ``reader`` read it; ``stats`` describes it.
"""
