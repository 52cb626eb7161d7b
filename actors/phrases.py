"""Where a line of a subtitle may end, and how well it reads there.

A text is cut into pieces, which are never broken: words, and in Chinese and Japanese, which write no spaces, single
characters with the marks that may not be parted from them. A piece carries the space before it, so a line is its pieces
joined. The cost of a break is 0 after a sentence and grows to LEANING after an article: what Netflix's Timed Text Style
Guide (general requirements, 5. line treatment) and the BBC's Subtitle Guidelines (3.4) say in words.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

#: What it costs to break after a word that ends a sentence, ends a clause, is any word, leans on the next one.
SENTENCE, CLAUSE, WORD, LEANING = 0, 12, 45, 90
#: Other costs: after a word of up to three letters, after a number, between two names, inside a word.
_SHORT_WORD, _NUMBER, _NAMES, INSIDE_WORD = 55, 65, 70, 200
#: Better before a conjunction, a preposition, a bracket or a dash; worse before a number (`chapter 3`).
_BEFORE_CONJUNCTION, _BEFORE_PREPOSITION, _BEFORE_BRACKET, _BEFORE_NUMBER = -22, -15, -25, 20
#: After hiragana, which ends Japanese phrases; after other characters that are written without spaces.
_AFTER_HIRAGANA, _AFTER_CHARACTER = 30, 48
#: At a space between two of those characters: whoever writes one there means it.
_AT_RARE_SPACE = 15
#: Before hiragana, and before a Chinese particle: both belong to what is before them.
_BEFORE_HIRAGANA = 35

#: What it adds to break after the word that follows a leaning one, before a plain word: `the particular | user`.
INSIDE_PHRASE = 15

#: A single word on a line that is no wider looks lost.
LONE_COLUMNS = 10

#: What may not begin a line, and what may not end one (kinsoku, JIS X 4051), as character classes.
_NOT_FIRST = (
    r"!%),.:;?\]}¢°»’”‰′″℃…‥、。々〉》」』】〕〗〙〟〻ぁぃぅぇぉっゃゅょゎゕゖ゛゜ゝゞァィゥェォッャュョヮヵヶ・ーヽヾ"
    r"！％），．：；？］｝～｠｡｣､･〜–—"
)
_NOT_LAST = r"(\[{£¥«‘“〈《「『【〔〖〘〝（［｛｟｢＄￡￥"
#: Marks that belong to the character before: accents, voicing marks, variation selectors, the joiner.
_MARKS = "\u0300-\u036f\u200d\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"
#: Written without spaces, a break may be between any two: Han, kana, their punctuation. Hangul has spaces.
_UNSPACED = (
    "\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff"
)
_KATAKANA = "ァ-ヺー\uff66-\uff9f"
_UNSPACED_TEXT = re.compile(f"[{_UNSPACED}]")
_PIECE = re.compile(
    f"[{_NOT_LAST}]*(?:[{_KATAKANA}]+|[{_UNSPACED}]|[^{_UNSPACED}{_NOT_LAST}]+)[{_NOT_FIRST}{_MARKS}]*|.", re.DOTALL
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
#: A no-break space holds two words together; it is kept inside a piece.
_NO_BREAK = re.compile("[\u00a0\u202f]")
_OTHER_SPACE = re.compile("[^\\S\u00a0\u202f]+")

_CLOSING = "\"'”’»)]」』）】〉》"
_ENDS_SENTENCE = (".", "!", "?", "…", "。", "！", "？", "؟", "۔", "।", "｡", "．")
_ENDS_CLAUSE = (",", ";", ":", "—", "–", "、", "，", "；", "：", "،", "؛", ")", "]", "」", "』", "）")
_OPENS = ("(", "[", "—", "–", "- ", "“", "„", "«", "「", "『", "（", "¿", "¡")
_HIRAGANA = re.compile("[ぁ-ゖ]")
_PARTICLES = frozenset("的了吗嗎呢吧啊呀着過过们們地得")


class _Words(NamedTuple):
    """Of one language, in small letters."""

    #: Lean on the next word: articles, possessives, prepositions, pronouns before their verb, auxiliaries, negations.
    leaning: frozenset[str]
    conjunctions: frozenset[str]
    prepositions: frozenset[str]


def _words(leaning: str, conjunctions: str, prepositions: str) -> _Words:
    joining = frozenset(conjunctions.split()), frozenset(prepositions.split())
    return _Words(frozenset(leaning.split()) | joining[0] | joining[1], *joining)


_LANGUAGES = {
    "en": _words(
        "a an the my your his her its our their this that these those i you he she it we they who is are was were be"
        " been am has have had do does did will would shall should can could may might must not no very don't i'm it's",
        "and or but nor so yet because if when while although though unless until since which that who whose where",
        "of to in on at by for with from into onto upon over under about as than after before between through without",
    ),
    "de": _words(
        "der die das den dem des ein eine einen einem einer eines mein meine dein sein seine ihr ihre unser unsere kein"
        " keine ich du er sie es wir man ist sind war waren wird werden hat haben hatte nicht sehr im am zum zur beim",
        "und oder aber denn sondern dass weil wenn als ob obwohl damit während bis bevor nachdem wie wo",
        "in an auf aus bei mit nach von vor zu für über unter um durch gegen ohne zwischen seit",
    ),
    "fr": _words(
        "le la les un une des du au aux mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs ce cet cette"
        " ces je tu il elle on nous vous ils elles ne se me te y est sont a ont était très pas",
        "et ou mais donc or ni car que qui dont où quand lorsque parce puisque si comme",
        "à de en dans sur sous par pour avec sans chez vers entre depuis pendant avant après contre",
    ),
    "es": _words(
        "el la los las un una unos unas mi tu su sus mis nuestro nuestra este esta estos estas ese esa yo él ella"
        " nosotros ellos se me te le lo no es son era está están ha han muy al del",
        "y e o u pero sino porque que quien cuando donde aunque si como mientras",
        "a de en con por para sin sobre entre hasta desde hacia según contra durante",
    ),
    "it": _words(
        "il lo la i gli le un uno una mio mia tuo sua suo nostro questo questa quel quella io tu lui lei noi loro si mi"
        " ti non è sono era ha hanno molto al alla del della dei delle nel nella sul sulla dal dalla",
        "e o ma perché che chi cui quando dove se come mentre anche",
        "a di da in con su per tra fra senza verso dopo prima contro",
    ),
    "pt": _words(
        "o a os as um uma uns umas meu minha seu sua nosso nossa este esta esse essa eu tu ele ela nós eles se me te"
        " não é são era está muito ao à do da dos das no na nos nas pelo pela",
        "e ou mas porque que quem quando onde embora se como enquanto",
        "a de em com por para sem sobre entre até desde contra durante após",
    ),
    "nl": _words(
        "de het een mijn jouw zijn haar ons onze hun deze dit die dat geen ik jij je hij zij ze we wij is was waren"
        " wordt worden heeft hebben had niet zeer",
        "en of maar want dus omdat als toen terwijl hoewel zodat dat wie waar",
        "in op aan bij met naar van voor over onder om door tegen zonder tussen sinds uit te",
    ),
}
_UNKNOWN = _words("", "", "")
_ABBREVIATIONS = frozenset(
    {"mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "z.b.", "d.h.", "u.a.", "hr.", "fr.", "nr."}
    | {"bzw.", "ca.", "mme.", "mlle.", "sr.", "sra.", "sig."}
)


def pieces(text: str) -> list[str]:
    """The text cut where a line may end. White space becomes a space, that before the first piece goes; so do control
    characters. Empty: there is nothing but those."""
    text = without_controls(text)
    if _NO_BREAK.search(text):
        words = [word for part in _OTHER_SPACE.split(text) if (word := part.strip())]
    else:
        words = text.split()
    if text.isascii() or not _UNSPACED_TEXT.search(text):
        return [words[0], *[" " + word for word in words[1:]]] if words else []
    found: list[str] = []
    for word in words:
        first, *others = _PIECE.findall(word)
        found += [" " + first if found else first, *others]
    return found


def without_controls(text: str) -> str:
    """Without the control characters that are not white space."""
    return text if text.isprintable() else _CONTROL.sub("", text)


def needs_space(before: str, after: str) -> bool:
    """Whether two texts that follow each other are written with a space between them. Neither is empty."""
    return not (_UNSPACED_TEXT.match(before[-1]) or _UNSPACED_TEXT.match(after[0]))


@lru_cache(maxsize=2**14)
def columns(text: str) -> int:
    """How wide the text is: Unicode's wide and fullwidth characters take two columns (UAX #11), marks none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


@lru_cache(maxsize=2**14)
def _columns(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def chopped(piece: str, width: int) -> list[str]:
    """A piece that is wider than a line, in parts of at most `width` columns, or a single character if that is wider.
    A mark stays with its character; what a no-break space held together is parted there first."""
    parts: list[str] = []
    for word in piece.split():
        first, *others = _chopped_word(word, width)
        parts += [" " + first if parts or piece[0] == " " else first, *others]
    return parts


def _chopped_word(word: str, width: int) -> list[str]:
    parts = [""]
    used = 0
    for cluster in _clusters(word, width):
        taken = columns(cluster)
        if used + taken > width and parts[-1]:
            parts.append("")
            used = 0
        parts[-1] += cluster
        used += taken
    return parts


def _clusters(word: str, width: int) -> list[str]:
    """Its characters, each with the marks on it as far as they fit into a line together."""
    clusters: list[str] = []
    for letter in word:
        joined = unicodedata.category(letter)[0] == "M" or (clusters and clusters[-1].endswith("\u200d"))
        if clusters and (not _columns(letter) or (joined and columns(clusters[-1] + letter) <= width)):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    return clusters


class Traits(NamedTuple):
    """What a piece means for the breaks around it."""

    #: Columns, with the space before it.
    width: int
    #: Cost of a break after it, before what follows is known.
    after: int
    #: What it adds to the cost of a break before it.
    before: int
    #: Looks like a name, where names are written large and other words small.
    name: bool
    #: Written without spaces, and yet one is before it.
    apart: bool


@lru_cache(maxsize=2**14)
def traits(piece: str, language: str) -> Traits:
    """`language`: as Whisper names it; one that is not known here has its punctuation and its short words."""
    known = _LANGUAGES.get(language, _UNKNOWN)
    word = piece.strip()
    small = word.lower()
    name = language != "de" and word[:1].isupper() and word.isalpha() and small not in known.leaning
    apart = piece[0] == " " and bool(_UNSPACED_TEXT.match(word))
    return Traits(columns(piece), _after(word, small, known), _before(word, small, known), name, apart)


def _after(word: str, small: str, known: _Words) -> int:
    if small in known.leaning or small in _ABBREVIATIONS or (len(word) == 2 and word[0].isalpha() and word[1] == "."):
        return LEANING
    inner = word.rstrip(_CLOSING)
    if inner.endswith(_ENDS_SENTENCE):
        return SENTENCE
    if word.endswith(_ENDS_CLAUSE) or inner.endswith(_ENDS_CLAUSE):
        return CLAUSE
    if _UNSPACED_TEXT.match(word[-1:]):
        return _AFTER_HIRAGANA if _HIRAGANA.match(word[-1]) else _AFTER_CHARACTER
    if word.isdecimal():
        return _NUMBER
    return _SHORT_WORD if len(word) <= 3 else WORD


def _before(word: str, small: str, known: _Words) -> int:
    if small in known.conjunctions:
        return _BEFORE_CONJUNCTION
    if small in known.prepositions:
        return _BEFORE_PREPOSITION
    if word.startswith(_OPENS):
        return _BEFORE_BRACKET
    if _HIRAGANA.match(word) or word[:1] in _PARTICLES:
        return _BEFORE_HIRAGANA
    return _BEFORE_NUMBER if word.isdecimal() else 0


def break_cost(before: Traits, after: Traits) -> int:
    """Of a line that ends between the two."""
    cost = before.after + after.before
    if before.name and after.name and before.after == WORD:
        return _NAMES
    if after.apart and before.after in (_AFTER_HIRAGANA, _AFTER_CHARACTER):
        return _AT_RARE_SPACE
    return max(cost, 0)
