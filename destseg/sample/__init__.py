"""Pictures of manufactured parts, good and defective, made from a seed: what `destseg demo` works on."""
