"""Workflows as Scipion exports them."""

import json
from typing import Any

import pytest

Item = dict[str, Any]


def protocol(class_name: str, identity: int, label: str = "", **values: Any) -> Item:
    """Return one protocol of an export, with what all have."""
    return {
        "object.className": class_name,
        "object.id": str(identity),
        "object.label": label,
        "object.comment": values.pop("comment", ""),
        "_useQueue": False,
        "_prerequisites": values.pop("prerequisites", ""),
        "_queueParams": None,
        "runName": None,
        "runMode": 1,
        **values,
        "hostName": "localhost",
        "numberOfThreads": 3,
        "numberOfMpi": 1,
    }


def _movies() -> list[Item]:
    return [
        protocol(
            "XmippProtMovieMaxShift",
            30,
            "max shift",
            comment="strict, for this grid",
            rejType=3,
            maxFrameShift=5.0,
            maxMovieShift=20.0,
            inputMovies="20.outputMovies",
        ),
        protocol(
            "ProtImportMovies",
            10,
            "import movies",
            importFrom=0,
            filesPath="~Folder of the movies|%(HOME)s/movies|2|moviesPath~",
            filesPattern="grid*/FoilHole_####_fractions.tiff",
            copyFiles=False,
            voltage="~Voltage (kV)|200|4|voltage~",
            sphericalAberration=2.7,
            amplitudeContrast=0.1,
            magnification=50000,
            samplingRateMode=0,
            samplingRate=0.5,
            scannedPixelSize=7.0,
            doseInitial=0.0,
            dosePerFrame="~Dose per frame||4|dose~",
            gainFile="/data/gain[1].mrc",
            darkFile=None,
            dataStreaming=True,
            timeout="1d 2h",
            fileTimeout="30",
        ),
        protocol("XmippProtMovieGain", 15, "gain", movieStep=100, estimateGain=True, inputMovies="10.outputMovies"),
        protocol(
            "ProtMotionCorr",
            20,
            "motioncor (gpus 0, 1)",
            prerequisites="15",
            alignFrame0=2,
            alignFrameN=35,
            binFactor=2.0,
            doApplyDoseFilter=True,
            patchX=5,
            patchY=7,
            group=1,
            groupLocal=4,
            tol=0.5,
            gainRot=1,
            gainFlip=0,
            eerGroup=32,
            eerSampling=1,
            gpuList="0,1",
            inputMovies="10.outputMovies",
        ),
    ]


def _micrographs() -> list[Item]:
    return [
        protocol("XmippProtTiltAnalysis", 35, "tilt", window_size=1024, inputMicrographs="30.outputMicrographsDoseWeighted"),
        protocol(
            "CistemProtCTFFind",
            40,
            "ctffind",
            windowSize=512,
            lowRes=30.0,
            highRes=5.0,
            minDefocus=5000.0,
            maxDefocus=40000.0,
            stepDefocus=100.0,
            fixAstig=True,
            astigmatism=100.0,
            findPhaseShift=False,
            minPhaseShift=0.0,
            maxPhaseShift=180.0,
            inputMicrographs="35.outputMicrographs",
        ),
        protocol(
            "XmippProtCTFConsensus",
            50,
            "ctf consensus",
            useDefocus=True,
            minDefocus=1000.0,
            maxDefocus=30000.0,
            useAstigmatism=False,
            astigmatism=1000.0,
            useAstigmatismPercentage=True,
            astigmatismPer=0.1,
            useResolution=True,
            resolution="~Worst resolution|4.5|4|resolution~",
            useCritXmipp=False,
            calculateConsensus=False,
            averageDefocus=True,
            inputCTF="40.outputCTF",
        ),
        protocol("XmippProtTriggerData", 55, "receive stop", triggerWait=True, outputSize=1, inputImages="50.outputMicrographs"),
    ]


def _particles() -> list[Item]:
    return [
        protocol(
            "SphireProtCRYOLOPicking", 60, "cryolo", conservPickVar=0.3, boxSize=120, inputMicrographs="55.outputMicrographs"
        ),
        protocol("ProtBoxSizeParameters", 65, "sizes", boxSize="60.boxsize", factorExtractPartBx=1.64),
        protocol(
            "ProtRelionAutopickLoG",
            70,
            "log",
            minDiameter="65.minLoGFilterRelion",
            maxDiameter="65.maxLoGFilterRelion",
            areParticlesWhite=False,
            threshold=0.0,
            inputMicrographs="55.outputMicrographs",
        ),
        protocol(
            "XmippProtConsensusPicking",
            75,
            "both",
            inputCoordinates=["60.outputCoordinates", "70.outputCoordinates"],
            consensusRadius="65.radiusConsensus",
            consensus=-1,
        ),
        protocol(
            "ProtRelionExtractParticles",
            80,
            "extract",
            boxSize="65.boxSizeExtraction",
            doRescale=True,
            rescaledSize=65,
            saveFloat16=True,
            doInvert=True,
            doNormalize=True,
            backDiameter=-1,
            stddevWhiteDust=-1.0,
            stddevBlackDust=-1.0,
            ctfRelations="40.outputCTF",
            inputCoordinates="75.consensusCoordinates",
        ),
        protocol("XmippProtTriggerData", 85, "stop", triggerProt="55.", outputSize=20000, inputImages="80.outputParticles"),
        protocol("ProtCryo2D", 90, "2D", numberOfClasses=50, maximunResolution=6, inputParticles="85.outputParticles"),
        protocol("CryoassessProt2D", 95, "assess", batchSize=32, inputRefs="90.outputClasses"),
        protocol("ProtCryo2D", 100, "2D again", numberOfClasses=30, inputParticles="95.outputParticles"),
        protocol("LabProtSomething", 105, "our own", magic=[1, 2], inputParticles="80.outputParticles"),
        protocol("ProtMonitorSummary", 110, "monitor", inputProtocols=["10", "20", "40"], emailTo="staff@lab"),
    ]


@pytest.fixture
def facility() -> list[Item]:
    """From movies to 2D classes, as a facility runs it."""
    return [*_movies(), *_micrographs(), *_particles()]


@pytest.fixture
def facility_template(facility: list[Item]) -> str:
    """The same as a template with free text at its head."""
    return "From movies to 2D classes,\nin streaming: 100 %\n" + json.dumps(facility, indent=4)
