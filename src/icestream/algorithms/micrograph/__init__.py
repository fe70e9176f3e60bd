"""What a micrograph shows, in numbers: ice, crystals, film, dirt, particles."""
