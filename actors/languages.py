"""The languages that Whisper knows: its code → its name in English.

Data, so that the API can list them without the engine. The codes are ISO 639-1, except haw and yue, which have none
there, and jw for Javanese, which is jv elsewhere. Cantonese (yue) came with large-v3; older models do not know it.

Clients name a language in other ways, too: as a tag of BCP 47 (`en-US`), with three letters (ISO 639-2, both kinds),
with a code that was given up (`iw`), or by its name. `parse_language` reads them all.
"""

import re

LANGUAGES: dict[str, str] = {
    "af": "Afrikaans",
    "am": "Amharic",
    "ar": "Arabic",
    "as": "Assamese",
    "az": "Azerbaijani",
    "ba": "Bashkir",
    "be": "Belarusian",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "bo": "Tibetan",
    "br": "Breton",
    "bs": "Bosnian",
    "ca": "Catalan",
    "cs": "Czech",
    "cy": "Welsh",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fa": "Persian",
    "fi": "Finnish",
    "fo": "Faroese",
    "fr": "French",
    "gl": "Galician",
    "gu": "Gujarati",
    "ha": "Hausa",
    "haw": "Hawaiian",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "ht": "Haitian Creole",
    "hu": "Hungarian",
    "hy": "Armenian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "jw": "Javanese",
    "ka": "Georgian",
    "kk": "Kazakh",
    "km": "Khmer",
    "kn": "Kannada",
    "ko": "Korean",
    "la": "Latin",
    "lb": "Luxembourgish",
    "ln": "Lingala",
    "lo": "Lao",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "mg": "Malagasy",
    "mi": "Maori",
    "mk": "Macedonian",
    "ml": "Malayalam",
    "mn": "Mongolian",
    "mr": "Marathi",
    "ms": "Malay",
    "mt": "Maltese",
    "my": "Myanmar",
    "ne": "Nepali",
    "nl": "Dutch",
    "nn": "Nynorsk",
    "no": "Norwegian",
    "oc": "Occitan",
    "pa": "Punjabi",
    "pl": "Polish",
    "ps": "Pashto",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sa": "Sanskrit",
    "sd": "Sindhi",
    "si": "Sinhala",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sn": "Shona",
    "so": "Somali",
    "sq": "Albanian",
    "sr": "Serbian",
    "su": "Sundanese",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "te": "Telugu",
    "tg": "Tajik",
    "th": "Thai",
    "tk": "Turkmen",
    "tl": "Tagalog",
    "tr": "Turkish",
    "tt": "Tatar",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "uz": "Uzbek",
    "vi": "Vietnamese",
    "yi": "Yiddish",
    "yo": "Yoruba",
    "yue": "Cantonese",
    "zh": "Chinese",
}

#: Whisper's code → other codes of the language: ISO 639-2 (T, then B), ISO 639-1 where Whisper's is another, codes that
#: were given up, and single languages of ISO 639-3 for which the general name is used.
_OTHER_CODES = {
    "af": "afr",
    "am": "amh",
    "ar": "ara arb",
    "as": "asm",
    "az": "aze azj",
    "ba": "bak",
    "be": "bel",
    "bg": "bul",
    "bn": "ben",
    "bo": "bod tib",
    "br": "bre",
    "bs": "bos",
    "ca": "cat",
    "cs": "ces cze",
    "cy": "cym wel",
    "da": "dan",
    "de": "deu ger",
    "el": "ell gre",
    "en": "eng",
    "es": "spa",
    "et": "est ekk",
    "eu": "eus baq",
    "fa": "fas per pes prs",
    "fi": "fin",
    "fo": "fao",
    "fr": "fra fre",
    "gl": "glg",
    "gu": "guj",
    "ha": "hau",
    "he": "heb iw",
    "hi": "hin",
    "hr": "hrv scr",
    "ht": "hat",
    "hu": "hun",
    "hy": "hye arm",
    "id": "ind in",
    "is": "isl ice",
    "it": "ita",
    "ja": "jpn",
    "jw": "jav jv",
    "ka": "kat geo",
    "kk": "kaz",
    "km": "khm",
    "kn": "kan",
    "ko": "kor",
    "la": "lat",
    "lb": "ltz",
    "ln": "lin",
    "lo": "lao",
    "lt": "lit",
    "lv": "lav lvs",
    "mg": "mlg plt",
    "mi": "mri mao",
    "mk": "mkd mac",
    "ml": "mal",
    "mn": "mon khk",
    "mr": "mar",
    "ms": "msa may zsm",
    "mt": "mlt",
    "my": "mya bur",
    "ne": "nep npi",
    "nl": "nld dut",
    "nn": "nno",
    "no": "nor nb nob",
    "oc": "oci",
    "pa": "pan",
    "pl": "pol",
    "ps": "pus",
    "pt": "por",
    "ro": "ron rum mo mol",
    "ru": "rus",
    "sa": "san",
    "sd": "snd",
    "si": "sin",
    "sk": "slk slo",
    "sl": "slv",
    "sn": "sna",
    "so": "som",
    "sq": "sqi alb",
    "sr": "srp scc",
    "su": "sun",
    "sv": "swe",
    "sw": "swa swh",
    "ta": "tam",
    "te": "tel",
    "tg": "tgk",
    "th": "tha",
    "tk": "tuk",
    "tl": "tgl fil",
    "tr": "tur",
    "tt": "tat",
    "uk": "ukr",
    "ur": "urd",
    "uz": "uzb uzn",
    "vi": "vie",
    "yi": "yid ji ydd",
    "yo": "yor",
    "zh": "zho chi cmn",
}

#: Other names in English, those of openai-whisper among them.
_OTHER_NAMES = {
    "bangla": "bn",
    "bokmål": "no",
    "burmese": "my",
    "castilian": "es",
    "farsi": "fa",
    "filipino": "tl",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "mandarin chinese": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "norwegian bokmål": "no",
    "norwegian nynorsk": "nn",
    "panjabi": "pa",
    "pushto": "ps",
    "simplified chinese": "zh",
    "sinhalese": "si",
    "traditional chinese": "zh",
    "valencian": "ca",
}

#: Any of these asks for detection.
_DETECT = frozenset({"", "auto", "autodetect", "auto-detect", "detect", "und"})

_BY_CODE = {code: code for code in LANGUAGES} | {
    other: code for code, others in _OTHER_CODES.items() for other in others.split()
}
_BY_NAME = {name.casefold(): code for code, name in LANGUAGES.items()} | _OTHER_NAMES

#: A tag of BCP 47, or a POSIX locale: `zh-Hant-TW`, `en_US.UTF-8`.
_TAG = re.compile(r"([a-z]{2,3})((?:[-_][a-z0-9]{1,8})*)(?:\.[a-z0-9-]+)?", re.ASCII)
_IN_BRACKETS = re.compile(r"\s*\([^()]*\)$")


class LanguageUnknown(ValueError):
    """Whisper knows no language of this code or name."""


def parse_language(given: str) -> str | None:
    """Whisper's code of a language that a client names, in any case; None: detect it.

    Raises:
        LanguageUnknown
    """
    asked = given.strip().casefold()
    if asked in _DETECT:
        return None
    code = _BY_NAME.get(_IN_BRACKETS.sub("", asked))
    if code is None and (tag := _TAG.fullmatch(asked)) is not None:
        # Cantonese is a language of its own also where it is said to be a kind of Chinese: zh-yue.
        code = "yue" if tag[1] == "zh" and "yue" in re.split("[-_]", tag[2]) else _BY_CODE.get(tag[1])
    if code is None:
        raise LanguageUnknown
    return code
