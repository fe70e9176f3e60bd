import pytest

from icestream.errors import FileFormatError, SourceGone
from icestream.io.epu import read_epu_xml
from icestream.io.fei import read_eer_metadata
from icestream.io.mdoc import parse_mdoc, read_mdoc
from icestream.io.metadata import exposure_stem, find_sidecar, place_exposure, read_beside, read_sidecar
from icestream.io.said import Frames, Said, agree
from icestream.records import Acquisition, ExposureMetadata

AFIS = "session_metadata/epu_afis_2020/Images-Disc1/GridSquare_5324661/Data"


def test_epu_2_6(shared_data):
    path = shared_data / AFIS / "FoilHole_5330589_Data_5338216_5338218_20200206_172047.xml"
    metadata, acquisition = agree([read_epu_xml(path)], Frames(22, 4096, 4096))
    assert metadata.note is None
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
        said = read_epu_xml(path)
        metadata, acquisition = said.metadata, said.acquisition
        assert said.notes == ()
        if path.stem.endswith("_Fractions"):
            assert metadata.camera == "Falcon-3"
            assert metadata.exposure_s > 1
        else:
            assert acquisition.voltage_kv in (200, 300)
            assert 0.4 < acquisition.pixel_size_ang < 3
            assert metadata.total_dose_e_per_ang2 > 0
            assert metadata.beam_shift_x is not None


def test_epu_fractions_alone(shared_data):
    said = read_epu_xml(shared_data / AFIS / "FoilHole_5330607_Data_5338284_5338286_20200206_190143_Fractions.xml")
    assert said.metadata.exposure_s == pytest.approx(22 * 1.47045708, rel=0.02)
    assert (said.acquisition, said.n_frames) == (Acquisition(), 22)


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
    assert read_epu_xml(path) == Said("a.xml")


def test_mdoc_of_a_k2(shared_data):
    path = shared_data / "session_metadata/ls_metadata_reader/tests/mdocspa/2023-09-25_14.13.07_Grid9-_template_0035.tif.mdoc"
    metadata, acquisition = agree([read_mdoc(path)], Frames(40, 3838, 3710))
    assert acquisition == Acquisition(voltage_kv=300, pixel_size_ang=0.82, dose_per_frame_e_per_ang2=0.98073)
    assert metadata.note is None
    assert metadata.applied_defocus_um == 2
    assert metadata.total_dose_e_per_ang2 == pytest.approx(39.2292)
    assert (metadata.stage_x_um, metadata.stage_y_um, metadata.stage_z_um) == (-47.2012, 28.4092, -13.1043)
    assert metadata.acquired_at == "2023-09-25T14:13:26"
    assert metadata.exposure_s == 3
    assert metadata.microscope == "Gatan K2 Summit on Titan Krios D"


def test_mdoc_of_a_binned_view_gives_no_pixel_size_and_no_zero_dose(shared_data):
    path = next((shared_data / "session_metadata/magellon").glob("*.mdoc"))
    metadata, acquisition = agree([read_mdoc(path)], Frames(46, 8192, 8192))
    assert acquisition == Acquisition(voltage_kv=300)
    assert metadata.note == f"{path.name} gives the pixel size of a view binned by 8, not of the frames: it is not used"
    assert metadata.total_dose_e_per_ang2 is None
    assert metadata.microscope == "Titan Krios"
    assert metadata.stage_z_um == 338.877


def test_mdoc_of_many_exposures(shared_data):
    folder = shared_data / "session_metadata/mdocfile"
    general, sections = parse_mdoc(folder / "tilt_series.mdoc")
    assert general["PixelSpacing"] == "5.4"
    assert len(sections) > 30
    assert read_mdoc(folder / "tilt_series.mdoc", movie_name="TS_01_001_3.0.mrc").metadata.tilt_deg == pytest.approx(3.00113)
    said = read_mdoc(folder / "frame_set_single.mdoc")
    assert said.metadata.tilt_deg == pytest.approx(32.984)
    assert (said.dose_per_frame_e_per_ang2, said.n_frames) == (0.63824, 12)
    for path in sorted((shared_data / "session_metadata").glob("**/*.mdoc")):
        assert all("binned by" in note or "the second is used" in note for note in read_mdoc(path).notes)


def test_no_mdoc(tmp_path):
    path = tmp_path / "a.mdoc"
    whole = b"Voltage = 300\n\n[FrameSet = 0]\nPixelSpacing = 0.82\nBinning = 1\n"
    for content in (b"\x00\x01 no values here\n", bytes(range(256)) * 20, b"no values = here\n", whole[:30]):
        path.write_bytes(content)
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
    assert exposure_stem(movie) == exposure_stem(sidecar)


def test_a_whole_epu_session_finds_its_sidecars(shared_data):
    folder = shared_data / AFIS
    movie = folder / "FoilHole_5330589_Data_5338216_5338218_20200206_172047_Fractions.mrc"
    sidecar = find_sidecar(movie)
    assert sidecar.name == "FoilHole_5330589_Data_5338216_5338218_20200206_172047.xml"
    assert sidecar is not None
    metadata, _ = read_beside(movie, None, None)
    assert (metadata.grid_square, metadata.foil_hole) == ("5324661", "5330589")
    mdoc = next((shared_data / "session_metadata/magellon").glob("*.mdoc"))
    assert read_sidecar(mdoc, mdoc.with_suffix("")).acquisition.voltage_kv == 300


def test_places_and_merging(tmp_path):
    placed = place_exposure(ExposureMetadata(foil_hole="7", tilt_deg=1), tmp_path / "movie.mrc")
    assert placed == ExposureMetadata(foil_hole="7", tilt_deg=1)
    first = Said("a", ExposureMetadata(tilt_deg=1), Acquisition(cs_mm=0))
    second = Said("b", ExposureMetadata(tilt_deg=2, exposure_s=3), Acquisition(cs_mm=0.0, voltage_kv=200))
    expected = ExposureMetadata(tilt_deg=1, exposure_s=3), Acquisition(cs_mm=0, voltage_kv=200)
    assert agree([first, second], None) == expected


def test_eer_acquisition_block(tmp_path):
    def read(items):
        said = read_eer_metadata(tmp_path / "a.eer", f"<metadata>{items}</metadata>\0".encode())
        return said.metadata, said.acquisition

    metadata, acquisition = read(
        '<item name="sensorPixelSize.width" unit="m">7.5e-11</item><item name="exposureTime" unit="s">4.2</item>'
        '<item name="commercialName">Falcon 4i</item><item name="timestamp">2025-03-14T17:40:48+01:00</item>'
    )
    assert acquisition.pixel_size_ang == pytest.approx(0.75)
    assert (metadata.exposure_s, metadata.camera, metadata.acquired_at) == (4.2, "Falcon 4i", "2025-03-14T17:40:48+01:00")
    assert read('<item name="sensorPixelSize.width" unit="m">1.4e-5</item>')[1].pixel_size_ang is None
    with pytest.raises(FileFormatError):
        read("<item")


def mdoc(folder, text, name="m.tif.mdoc"):
    (folder / name).write_text("Voltage = 300\n\n[FrameSet = 0]\n" + text)
    return folder / name.removesuffix(".mdoc")


@pytest.mark.parametrize(
    ("text", "frames", "dose", "said"),
    [
        ("FrameDosesAndNumber = 1.5 20\n", Frames(20, 8, 8), 1.5, None),
        ("FrameDosesAndNumber = 30 1\n", Frames(600, 8, 8, rendered=True), 0.05, "total dose of 30 e/Å² is divided"),
        ("FrameDosesAndNumber = 30 1\n", Frames(40, 8, 8), 0.75, "lists 1 frame, the file has 40: the total dose"),
        ("FrameDosesAndNumber = 1.5 20\n", Frames(10, 8, 8), 1.5, "some are missing"),
        ("FrameDosesAndNumber = 1 10 2 10\n", Frames(20, 8, 8), 1.5, "frames of 1 to 2 e/Å²"),
        ("FrameDosesAndNumber = 900 20\n", Frames(20, 8, 8), None, "a total dose of 1.8e+04 e/Å²: can be no more than 1000"),
        ("FrameDosesAndNumber = 1.5 20\nExposureDose = 45\n", Frames(20, 8, 8), 1.5, "the second is used"),
        ("FrameDosesAndNumber = much 20\n", Frames(20, 8, 8), None, "'much', which is no number"),
        ("ExposureDose = 40\n", Frames(20, 8, 8), 2.0, None),
        ("ExposureDose = 40\nNumSubFrames = 40\n", Frames(20, 8, 8), 2.0, "lists 40 frames, the file has 20"),
    ],
)
def test_the_dose_of_a_frame_fits_the_frames_that_there_are(tmp_path, text, frames, dose, said):
    metadata, acquisition = read_beside(mdoc(tmp_path, text), None, frames)
    assert acquisition.dose_per_frame_e_per_ang2 == (None if dose is None else pytest.approx(dose))
    assert (metadata.note is None) if said is None else said in metadata.note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PixelSpacing = 82\nBinning = 1\n", "pixel_size_ang as 82 Å: must be 0.05 to 50, and is not used"),
        ("Binning = 1\nPixelSpacing = 0.8", "ends within a line"),
    ],
)
def test_a_pixel_size_that_cannot_be_is_told_and_not_used(tmp_path, text, said):
    metadata, acquisition = read_beside(mdoc(tmp_path, text), None, Frames(20, 8, 8))
    assert acquisition == Acquisition(voltage_kv=300)
    assert said in metadata.note


EPU = """<MicroscopeImage><CustomData>{custom}</CustomData>
<SpatialScale><pixelSize><x><numericValue>1e-10</numericValue></x></pixelSize></SpatialScale>
<microscopeData><acquisition><camera><Binning><x>{binning}</x></Binning>
<ReadoutArea><height>4096</height><width>4096</width></ReadoutArea></camera></acquisition></microscopeData></MicroscopeImage>"""


def epu(folder, *, binning=1, **custom):
    pairs = "".join(f"<Pair><Key>{key}</Key><Value>{value}</Value></Pair>" for key, value in custom.items())
    (folder / "FoilHole_1_Data_2.xml").write_text(EPU.format(custom=pairs, binning=binning))
    return folder / "FoilHole_1_Data_2_EER.eer"


@pytest.mark.parametrize(
    ("side", "binning", "size", "said"),
    [
        (4096, 1, 1.0, None),
        (2048, 2, 1.0, None),
        (8192, 1, 0.5, "the frames of 8192×8192 (height × width) get 0.5 Å"),
        (2048, 1, 2.0, "get 2 Å"),
        (4096, 2, 1.0, "is used as it is stated"),
        (4000, 1, 1.0, "taken as a part of it"),
    ],
)
def test_the_pixel_size_fits_the_size_of_the_frames(tmp_path, side, binning, size, said):
    metadata, acquisition = read_beside(epu(tmp_path, binning=binning), None, Frames(20, side, side))
    assert acquisition.pixel_size_ang == pytest.approx(size)
    assert (metadata.note is None) if said is None else said in metadata.note


def test_epu_names_the_dose_of_the_camera_that_took_the_image(tmp_path):
    cameras = {"BinaryResult.Detector": "EF-Falcon", "Detectors[BM-Ceta].TotalDose": 99, "Detectors[EF-Falcon].TotalDose": 40}
    metadata, acquisition = read_beside(epu(tmp_path, **cameras), None, Frames(800, 4096, 4096, rendered=True))
    assert (metadata.total_dose_e_per_ang2, metadata.note) == (pytest.approx(40), None)
    assert acquisition.dose_per_frame_e_per_ang2 == pytest.approx(0.05)
    metadata, _ = read_beside(epu(tmp_path, **cameras, Dose=2e21), None, Frames(800, 4096, 4096))
    assert metadata.total_dose_e_per_ang2 == pytest.approx(20)
    assert "Detectors[EF-Falcon].TotalDose and the pixel size; the first is used" in metadata.note


def test_a_plain_header_has_the_last_word_and_a_contradiction_is_told(tmp_path):
    image = mdoc(tmp_path, "PixelSpacing = 0.82\nBinning = 1\n")
    assert read_beside(image, None, None, pixel_size_ang=0.82)[0].note is None
    metadata, acquisition = read_beside(image, None, None, pixel_size_ang=1.64)
    assert acquisition.pixel_size_ang == 0.82
    assert metadata.note == "pixel_size_ang: m.tif.mdoc says 0.82 Å, the image's header 1.64 Å; the first is used"
    assert read_beside(tmp_path / "b.tif", None, None, pixel_size_ang=1.64)[1].pixel_size_ang == 1.64
    assert read_beside(tmp_path / "b.tif", None, None, pixel_size_ang=1.0)[1].pixel_size_ang is None


def test_a_sidecar_that_cannot_be_read_is_named(tmp_path):
    movie = epu(tmp_path)
    sidecar = movie.with_name("FoilHole_1_Data_2.xml")
    sidecar.write_text(sidecar.read_text()[:200])
    metadata, acquisition = read_beside(movie, None, Frames(20, 8, 8))
    assert acquisition == Acquisition()
    assert metadata.note.startswith("FoilHole_1_Data_2.xml was not read: not well-formed XML")


def test_a_long_name_has_no_sidecar_and_is_no_error(tmp_path):
    assert find_sidecar(tmp_path / ("x" * 250 + ".mrc")) is None
