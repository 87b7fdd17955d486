"""Tissue properties at 1.5 T and 3 T: proton density, T1, T2 and ADC.

Sources. Muscle, fat, marrow, myometrium, endometrium, cervix: de Bazelaire et al., Radiology
2004;230:652, doi 10.1148/radiol.2303021331. Endometrium, junctional zone, myometrium,
follicle and stroma at 1.5 T: Takatsu et al., Acta Radiologica 2015;56:997. ADC of
myometrium: Tamai et al., Eur Radiol 2008;18:723, doi 10.1007/s00330-007-0787-7. Values
without an own measurement (urine, gas, stool, cortical bone, wall) are set near water,
air or muscle. Fat's T2 is the apparent one of a turbo spin echo train, longer than that
of a single echo because the refocusing train suppresses J-coupling (Henkelman et al., JMRI
1994;4:533), and muscle's is a little longer through stimulated echoes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tissue:
    """One tissue. `pd` is relative to water; times in ms; ADC in 1e-3 mm2/s.

    `fine` and `coarse` are the relative standard deviations of T2 (and, halved, of the
    others) over a few mm and over centimetres. `fat` marks what fat suppression removes; its
    ADC stands for the little water in it (fat itself hardly diffuses, see `signals.FAT_ADC`).
    """

    pd: float
    t1: tuple[float, float]
    """At 1.5 T and at 3 T."""
    t2: tuple[float, float]
    adc: float
    fine: float = 0.03
    coarse: float = 0.04
    fat: bool = False

    def values(self, field_strength_t: float) -> tuple[float, float, float, float]:
        """Proton density, T1, T2, ADC at this field."""
        at = int(field_strength_t > 2)
        return self.pd, self.t1[at], self.t2[at], self.adc


FAT = Tissue(0.95, (343, 382), (125, 128), 1.5, 0.02, 0.03, fat=True)
SKIN = Tissue(0.5, (900, 1000), (40, 38), 1.0)
PELVIC_FAT = Tissue(0.9, (330, 370), (118, 120), 1.5, 0.05, 0.05, fat=True)
MUSCLE = Tissue(0.8, (856, 898), (36, 34), 1.5, 0.07, 0.05)
CORTICAL = Tissue(0.08, (500, 500), (15, 15), 0.3)
MARROW = Tissue(0.75, (450, 500), (82, 78), 1.5, 0.06, 0.06, fat=True)
RED_MARROW = Tissue(0.75, (549, 586), (64, 60), 1.3, 0.06, 0.06, fat=True)
DISC = Tissue(0.7, (1000, 1100), (70, 65), 1.6, 0.08, 0.08)
VESSEL = Tissue(0.08, (1400, 1700), (40, 35), 3.0)
NERVE = Tissue(0.8, (900, 1000), (70, 65), 1.4)
WALL = Tissue(0.8, (950, 1050), (50, 46), 1.5, 0.06, 0.04)
URINE = Tissue(1.0, (3500, 3800), (900, 800), 2.9, 0.0, 0.01)
FLUID = Tissue(1.0, (3000, 3300), (600, 550), 2.7, 0.02, 0.03)
GAS = Tissue(0.01, (1000, 1000), (10, 10), 1.0)
STOOL = Tissue(0.65, (500, 550), (55, 50), 1.0, 0.25, 0.15)
BOWEL_CONTENT = Tissue(0.85, (1200, 1300), (115, 105), 2.0, 0.25, 0.25)
MYOMETRIUM = Tissue(0.83, (1311, 1514), (112, 88), 1.6, 0.06, 0.07)
JUNCTIONAL_ZONE = Tissue(0.8, (1168, 1330), (66, 54), 1.25, 0.05, 0.05)
ENDOMETRIUM = Tissue(0.95, (1600, 1750), (205, 165), 1.35, 0.05, 0.05)
CERVIX = Tissue(0.82, (1135, 1616), (70, 62), 1.6, 0.07, 0.06)
CERVIX_MUCOSA = Tissue(0.95, (1700, 1850), (220, 180), 1.9, 0.05, 0.05)
VAGINA = Tissue(0.82, (1100, 1250), (75, 68), 1.6, 0.06, 0.05)
OVARY = Tissue(0.88, (1481, 1600), (115, 95), 1.4, 0.07, 0.05)
FOLLICLE = Tissue(1.0, (2267, 2400), (550, 480), 2.6, 0.0, 0.02)
NODE = Tissue(0.85, (1000, 1150), (85, 75), 1.0)
