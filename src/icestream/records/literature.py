"""What a step does in the words of a methods section, and the papers that its algorithm comes from."""

from dataclasses import dataclass

from icestream.records.shown import Text

_MORE = "others"


@dataclass(frozen=True)
class Reference:
    """A paper, a book or a program that is to be cited; ``key`` names it in BibTeX."""

    key: str
    authors: tuple[str, ...]
    """As ``Family, Given``; ``others`` at the end where there are more."""
    title: str
    year: int
    journal: str = ""
    volume: str = ""
    pages: str = ""
    doi: str = ""
    url: str = ""

    @property
    def short(self) -> str:
        """How a text names it: ``Zheng et al., 2017``."""
        family = [one.partition(",")[0] for one in self.authors]
        named = f"{family[0]} et al." if len(family) > 2 else " & ".join(family)
        return f"{named}, {self.year}"

    @property
    def line(self) -> str:
        """The line of a list of references."""
        named = [one.strip("{}") for one in self.authors if one != _MORE]
        authors = "; ".join(named[:5]) + (" et al." if len(self.authors) > min(len(named), 5) else "")
        where = " ".join(part for part in (self.journal, self.volume) if part) + (f", {self.pages}" if self.pages else "")
        link = f" doi:{self.doi}" if self.doi else f" {self.url}" if self.url else ""
        return f"{authors} ({self.year}). {self.title}.{f' {where}.' if where else ''}{link}"

    @property
    def bibtex(self) -> str:
        """The entry for BibTeX."""
        fields = {
            "author": " and ".join(self.authors),
            "title": f"{{{self.title}}}",
            "year": str(self.year),
            "journal": self.journal,
            "volume": self.volume,
            "pages": self.pages.replace("–", "--"),
            "doi": self.doi,
            "url": self.url,
        }
        kind = "article" if self.journal else "misc"
        lines = [f"  {name} = {{{_escape(value)}}}," for name, value in fields.items() if value]
        return "\n".join([f"@{kind}{{{self.key},", *lines, "}"])


@dataclass(frozen=True)
class Method:
    """What a step does, as sentences with its parameters in braces, and what is to be cited for it.

    A sentence whose parameters are unset, or whose condition does not hold, is left out.
    """

    sentences: tuple[Text, ...]
    references: tuple[Reference, ...] = ()


def _escape(text: str) -> str:
    return text.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_") if "http" not in text else text


ZHENG_2017 = Reference(
    "zheng2017",
    ("Zheng, Shawn Q.", "Palovcak, Eugene", "Armache, Jean-Paul", "Verba, Kliment A.", "Cheng, Yifan", "Agard, David A."),
    "MotionCor2: anisotropic correction of beam-induced motion for improved cryo-electron microscopy",
    2017,
    "Nature Methods",
    "14",
    "331–332",
    "10.1038/nmeth.4193",
)
GRANT_2015 = Reference(
    "grant2015",
    ("Grant, Timothy", "Grigorieff, Nikolaus"),
    "Measuring the optimal exposure for single particle cryo-EM using a 2.6 Å reconstruction of rotavirus VP6",
    2015,
    "eLife",
    "4",
    "e06980",
    "10.7554/eLife.06980",
)
ROHOU_2015 = Reference(
    "rohou2015",
    ("Rohou, Alexis", "Grigorieff, Nikolaus"),
    "CTFFIND4: Fast and accurate defocus estimation from electron micrographs",
    2015,
    "Journal of Structural Biology",
    "192",
    "216–221",
    "10.1016/j.jsb.2015.08.008",
)
ZHANG_2016 = Reference(
    "zhang2016",
    ("Zhang, Kai",),
    "Gctf: Real-time CTF determination and correction",
    2016,
    "Journal of Structural Biology",
    "193",
    "1–12",
    "10.1016/j.jsb.2015.11.003",
)
ELFERICH_2024 = Reference(
    "elferich2024",
    ("Elferich, Johannes", "Kong, Lingli", "Zottig, Ximena", "Grigorieff, Nikolaus"),
    "CTFFIND5 provides improved insight into quality, tilt, and thickness of TEM samples",
    2024,
    "eLife",
    "13",
    "RP97227",
    "10.7554/eLife.97227",
)
MARABINI_2015 = Reference(
    "marabini2015",
    ("Marabini, Roberto", "Carragher, Bridget", "Chen, Shaoxia", "others"),
    "CTF Challenge: Result summary",
    2015,
    "Journal of Structural Biology",
    "190",
    "348–359",
    "10.1016/j.jsb.2015.04.003",
)
ZIVANOV_2018 = Reference(
    "zivanov2018",
    (
        "Zivanov, Jasenko",
        "Nakane, Takanori",
        "Forsberg, Björn O.",
        "Kimanius, Dari",
        "Hagen, Wim J. H.",
        "Lindahl, Erik",
        "Scheres, Sjors H. W.",
    ),
    "New tools for automated high-resolution cryo-EM structure determination in RELION-3",
    2018,
    "eLife",
    "7",
    "e42166",
    "10.7554/eLife.42166",
)
VOSS_2009 = Reference(
    "voss2009",
    ("Voss, N. R.", "Yoshioka, C. K.", "Radermacher, M.", "Potter, C. S.", "Carragher, B."),
    "DoG Picker and TiltPicker: Software tools to facilitate particle selection in single particle electron microscopy",
    2009,
    "Journal of Structural Biology",
    "166",
    "205–213",
    "10.1016/j.jsb.2009.01.004",
)
ROSEMAN_2003 = Reference(
    "roseman2003",
    ("Roseman, A. M.",),
    "Particle finding in electron micrographs using a fast local correlation algorithm",
    2003,
    "Ultramicroscopy",
    "94",
    "225–236",
    "10.1016/S0304-3991(02)00333-9",
)
BEPLER_2019 = Reference(
    "bepler2019",
    ("Bepler, Tristan", "Morin, Andrew", "Rapp, Micah", "Brasch, Julia", "Shapiro, Lawrence", "Noble, Alex J.", "Berger, Bonnie"),
    "Positive-unlabeled convolutional neural networks for particle picking in cryo-electron micrographs",
    2019,
    "Nature Methods",
    "16",
    "1153–1160",
    "10.1038/s41592-019-0575-8",
)
WRIGHT_2024 = Reference(
    "wright2024",
    ("Wright, Garrett", "Andén, Joakim", "Bansal, Vineet", "others"),
    "ComputationalCryoEM/ASPIRE-Python",
    2024,
    "Zenodo",
    "",
    "",
    "10.5281/zenodo.5657281",
)
WAGNER_2019 = Reference(
    "wagner2019",
    ("Wagner, Thorsten", "Merino, Felipe", "Stabrin, Markus", "others"),
    "SPHIRE-crYOLO is a fast and accurate fully automated particle picker for cryo-EM",
    2019,
    "Communications Biology",
    "2",
    "218",
    "10.1038/s42003-019-0437-z",
)
BEPLER_2020 = Reference(
    "bepler2020",
    ("Bepler, Tristan", "Kelley, Kotaro", "Noble, Alex J.", "Berger, Bonnie"),
    "Topaz-Denoise: general deep denoising models for cryoEM and cryoET",
    2020,
    "Nature Communications",
    "11",
    "5208",
    "10.1038/s41467-020-18952-1",
)
SCHERES_2012 = Reference(
    "scheres2012",
    ("Scheres, Sjors H. W.",),
    "RELION: Implementation of a Bayesian approach to cryo-EM structure determination",
    2012,
    "Journal of Structural Biology",
    "180",
    "519–530",
    "10.1016/j.jsb.2012.09.006",
)
KIMANIUS_2021 = Reference(
    "kimanius2021",
    ("Kimanius, Dari", "Dong, Liyi", "Sharov, Grigory", "Nakane, Takanori", "Scheres, Sjors H. W."),
    "New tools for automated cryo-EM single-particle analysis in RELION-4.0",
    2021,
    "Biochemical Journal",
    "478",
    "4169–4185",
    "10.1042/BCJ20210708",
)
YANG_2012 = Reference(
    "yang2012",
    ("Yang, Zhengfan", "Fang, Jia", "Chittuluru, Johnathan", "Asturias, Francisco J.", "Penczek, Pawel A."),
    "Iterative stable alignment and clustering of 2D transmission electron microscope images",
    2012,
    "Structure",
    "20",
    "237–247",
    "10.1016/j.str.2011.12.007",
)
DAWID_1979 = Reference(
    "dawid1979",
    ("Dawid, A. P.", "Skene, A. M."),
    "Maximum likelihood estimation of observer error-rates using the EM algorithm",
    1979,
    "Applied Statistics",
    "28",
    "20–28",
    "10.2307/2346806",
)
ROSENTHAL_2003 = Reference(
    "rosenthal2003",
    ("Rosenthal, Peter B.", "Henderson, Richard"),
    "Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle electron cryomicroscopy",
    2003,
    "Journal of Molecular Biology",
    "333",
    "721–745",
    "10.1016/j.jmb.2003.07.013",
)
CHEN_2013 = Reference(
    "chen2013",
    ("Chen, Shaoxia", "McMullan, Greg", "Faruqi, Abdul R.", "Murshudov, Garib N.", "Short, Judith M.", _MORE),
    "High-resolution noise substitution to measure overfitting and validate resolution in 3D structure determination by single "
    "particle electron cryomicroscopy",
    2013,
    "Ultramicroscopy",
    "135",
    "24–35",
    "10.1016/j.ultramic.2013.06.004",
)
NAYDENOVA_2017 = Reference(
    "naydenova2017",
    ("Naydenova, Katerina", "Russo, Christopher J."),
    "Measuring the effects of particle orientation to improve the efficiency of electron cryomicroscopy",
    2017,
    "Nature Communications",
    "8",
    "629",
    "10.1038/s41467-017-00782-3",
)
