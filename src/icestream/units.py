"""Numbers with a unit that forms, documentation and reports can read."""

from typing import Annotated

from pydantic import Field

Angstrom = Annotated[float, Field(json_schema_extra={"unit": "Å"})]
Micrometer = Annotated[float, Field(json_schema_extra={"unit": "µm"})]
Millimeter = Annotated[float, Field(json_schema_extra={"unit": "mm"})]
Kilovolt = Annotated[float, Field(json_schema_extra={"unit": "kV"})]
Degree = Annotated[float, Field(json_schema_extra={"unit": "°"})]
Second = Annotated[float, Field(json_schema_extra={"unit": "s"})]
Pixel = Annotated[float, Field(json_schema_extra={"unit": "px"})]
WholePixels = Annotated[int, Field(json_schema_extra={"unit": "px"})]
ElectronsPerSquareAngstrom = Annotated[float, Field(json_schema_extra={"unit": "e/Å²"})]
Gigabyte = Annotated[float, Field(json_schema_extra={"unit": "GB"})]
