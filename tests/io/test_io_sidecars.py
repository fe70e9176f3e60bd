import pytest

from icestream.errors import FileFormatError, SourceGone
from icestream.io.epu import read_epu_xml
from icestream.io.fei import read_eer_metadata
from icestream.io.mdoc import parse_mdoc, read_mdoc
from icestream.io.metadata import find_sidecar, merge_acquisition, merge_metadata, place_exposure, read_sidecar
from icestream.records import Acquisition, ExposureMetadata

AFIS = "session_metadata/epu_afis_2020/Images-Disc1/GridSquare_5324661/Data"


def test_epu_2_6(shared_data):
    path = shared_data / AFIS / "FoilHole_5330589_Data_5338216_5338218_20200206_172047.xml"
    metadata, acquisition = read_epu_xml(path)
    assert acquisition.voltage_kv == 300
    assert acquisition.pixel_size_ang == pytest.approx(0.87076783)
    assert acquisition.dose_per_frame_e_per_ang2 == pytest.approx(30.416976568753785 / 22)
    assert metadata.total_dose_e_per_ang2 == pytest.approx(30.416976568753785)
    assert metadata.applied_defocus_um == pytest.approx(2.25)
    assert metadata.exposure_s == pytest.approx(33.394933788605229)
    assert (metadata.beam_shift_x, metadata.beam_shift_y) == (-0.11627902090549469, 0.062827624380588531)
    assert metadata.stage_x_um == pytest.approx(-222.8117292)
    assert metadata.stage_y_um == pytest.approx(150.705544)
    assert metadata.stage_z_um == pytest.approx(-22.2262917)
    assert metadata.tilt_deg == pytest.approx(0.00999877, rel=1e-5)
    assert metadata.acquired_at == "2020-02-06T17:20:48.0109534+01:00"
    assert (metadata.microscope, metadata.camera) == ("TITAN52334290", "BM-Falcon")


def test_all_epu_files_of_three_versions(shared_data):
    paths = sorted((shared_data / "session_metadata").glob("**/*.xml"))
    assert len(paths) > 100
    for path in paths:
        metadata, acquisition = read_epu_xml(path)
        if path.stem.endswith("_Fractions"):
            assert metadata.camera == "Falcon-3"
            assert metadata.exposure_s > 1
        else:
            assert acquisition.voltage_kv in (200, 300)
            assert 0.4 < acquisition.pixel_size_ang < 3
            assert metadata.total_dose_e_per_ang2 > 0
            assert metadata.beam_shift_x is not None


def test_epu_fractions_alone(shared_data):
    metadata, acquisition = read_epu_xml(
        shared_data / AFIS / "FoilHole_5330607_Data_5338284_5338286_20200206_190143_Fractions.xml"
    )
    assert metadata.exposure_s == pytest.approx(22 * 1.47045708, rel=0.02)
    assert acquisition == Acquisition()


def test_hostile_and_foreign_xml(tmp_path):
    path = tmp_path / "a.xml"
    with pytest.raises(SourceGone):
        read_epu_xml(path)
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><MicroscopeImage>&b;</MicroscopeImage>'
    for content, words in [
        (bomb.encode(), "document type"),
        (bomb.encode("utf-16"), "document type"),
        (b"<html></html>", "root is <html>"),
        (b"<MicroscopeImage><core>", "not well-formed"),
        (b"\x00\x01\x02", "not well-formed"),
        (b"", "1 to"),
    ]:
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=words):
            read_epu_xml(path)
    path.write_bytes(b"<MicroscopeImage/>")
    assert read_epu_xml(path) == (ExposureMetadata(), Acquisition())


def test_mdoc_of_a_k2(shared_data):
    path = shared_data / "session_metadata/ls_metadata_reader/tests/mdocspa/2023-09-25_14.13.07_Grid9-_template_0035.tif.mdoc"
    metadata, acquisition = read_mdoc(path)
    assert acquisition == Acquisition(voltage_kv=300, pixel_size_ang=0.82, dose_per_frame_e_per_ang2=0.98073)
    assert metadata.applied_defocus_um == 2
    assert metadata.total_dose_e_per_ang2 == 39.2291
    assert (metadata.stage_x_um, metadata.stage_y_um, metadata.stage_z_um) == (-47.2012, 28.4092, -13.1043)
    assert metadata.acquired_at == "2023-09-25T14:13:26"
    assert metadata.exposure_s == 3
    assert metadata.microscope == "Gatan K2 Summit on Titan Krios D"


def test_mdoc_of_a_binned_view_gives_no_pixel_size_and_no_zero_dose(shared_data):
    path = next((shared_data / "session_metadata/magellon").glob("*.mdoc"))
    metadata, acquisition = read_mdoc(path)
    assert acquisition == Acquisition(voltage_kv=300)
    assert metadata.total_dose_e_per_ang2 is None
    assert metadata.microscope == "Titan Krios"
    assert metadata.stage_z_um == 338.877


def test_mdoc_of_many_exposures(shared_data):
    folder = shared_data / "session_metadata/mdocfile"
    general, sections = parse_mdoc(folder / "tilt_series.mdoc")
    assert general["PixelSpacing"] == "5.4"
    assert len(sections) > 30
    metadata, _ = read_mdoc(folder / "tilt_series.mdoc", movie_name="TS_01_001_3.0.mrc")
    assert metadata.tilt_deg == pytest.approx(3.00113)
    metadata, acquisition = read_mdoc(folder / "frame_set_single.mdoc")
    assert metadata.tilt_deg == pytest.approx(32.984)
    assert acquisition.dose_per_frame_e_per_ang2 == 0.63824
    for path in sorted((shared_data / "session_metadata").glob("**/*.mdoc")):
        read_mdoc(path)


def test_no_mdoc(tmp_path):
    path = tmp_path / "a.mdoc"
    path.write_bytes(b"\x00\x01 no values here\n")
    with pytest.raises(FileFormatError, match="not a SerialEM mdoc"):
        read_mdoc(path)


@pytest.mark.parametrize(
    ("movie", "sidecar"),
    [
        ("FoilHole_1_Data_2_3_20200206_172047_Fractions.mrc", "FoilHole_1_Data_2_3_20200206_172047.xml"),
        ("FoilHole_1_Data_2_3_20200206_172047_fractions.tiff", "FoilHole_1_Data_2_3_20200206_172047.xml"),
        ("FoilHole_1_Data_2_3_20200206_172047_EER.eer", "FoilHole_1_Data_2_3_20200206_172047.xml"),
        ("FoilHole_1_Data_2_3_20200206_172047_Fractions.mrc.bz2", "FoilHole_1_Data_2_3_20200206_172047.xml"),
        ("FoilHole_1_Data_2_3_20200206_172047.eer", "FoilHole_1_Data_2_3_20200206_172047.xml"),
        ("FoilHole_1_Data_2_3_20200206_172047_Fractions.mrc", "FoilHole_1_Data_2_3_20200206_172047_Fractions.xml"),
        ("2023-09-25_14.13.07_Grid9.tif", "2023-09-25_14.13.07_Grid9.tif.mdoc"),
        ("2023-09-25_14.13.07_Grid9.tif", "2023-09-25_14.13.07_Grid9.mdoc"),
    ],
)
def test_sidecars_are_found(tmp_path, movie, sidecar):
    assert find_sidecar(tmp_path / movie) is None
    (tmp_path / "other.xml").write_text("x")
    (tmp_path / sidecar).write_text("x")
    assert find_sidecar(tmp_path / movie) == tmp_path / sidecar


def test_a_whole_epu_session_finds_its_sidecars(shared_data):
    folder = shared_data / AFIS
    movie = folder / "FoilHole_5330589_Data_5338216_5338218_20200206_172047_Fractions.mrc"
    sidecar = find_sidecar(movie)
    assert sidecar.name == "FoilHole_5330589_Data_5338216_5338218_20200206_172047.xml"
    assert sidecar is not None
    metadata, _ = read_sidecar(sidecar, movie)
    assert (metadata.grid_square, metadata.foil_hole) == ("5324661", "5330589")
    mdoc = next((shared_data / "session_metadata/magellon").glob("*.mdoc"))
    assert read_sidecar(mdoc, mdoc.with_suffix(""))[1].voltage_kv == 300


def test_places_and_merging(tmp_path):
    placed = place_exposure(ExposureMetadata(foil_hole="7", tilt_deg=1), tmp_path / "movie.mrc")
    assert placed == ExposureMetadata(foil_hole="7", tilt_deg=1)
    merged = merge_metadata(ExposureMetadata(tilt_deg=1), ExposureMetadata(tilt_deg=2, exposure_s=3))
    assert merged == ExposureMetadata(tilt_deg=1, exposure_s=3)
    assert merge_acquisition(None, Acquisition(voltage_kv=200)) == Acquisition(voltage_kv=200)
    assert merge_acquisition(Acquisition(cs_mm=0), Acquisition(cs_mm=2.7)).cs_mm == 0


def test_eer_acquisition_block(tmp_path):
    def read(items):
        return read_eer_metadata(tmp_path / "a.eer", f"<metadata>{items}</metadata>\0".encode())

    metadata, acquisition = read(
        '<item name="sensorPixelSize.width" unit="m">7.5e-11</item><item name="exposureTime" unit="s">4.2</item>'
        '<item name="commercialName">Falcon 4i</item><item name="timestamp">2025-03-14T17:40:48+01:00</item>'
    )
    assert acquisition.pixel_size_ang == pytest.approx(0.75)
    assert (metadata.exposure_s, metadata.camera, metadata.acquired_at) == (4.2, "Falcon 4i", "2025-03-14T17:40:48+01:00")
    assert read('<item name="sensorPixelSize.width" unit="m">1.4e-5</item>')[1].pixel_size_ang is None
    with pytest.raises(FileFormatError):
        read("<item")
