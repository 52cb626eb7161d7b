"""Languages as files name those of their tracks, with three letters, and as people do: all to one code.

https://www.loc.gov/standards/iso639-2/php/code_list.php
"""

from actors.languages import LANGUAGES

#: ISO 639-2 and -3 → Whisper's codes. Where there are two of three letters, the second is the bibliographic one.
_THREE_LETTERS = (
    "af:afr am:amh ar:ara as:asm az:aze ba:bak be:bel bg:bul bn:ben bo:bod,tib br:bre bs:bos ca:cat cs:ces,cze "
    "cy:cym,wel da:dan de:deu,ger el:ell,gre en:eng es:spa et:est eu:eus,baq fa:fas,per fi:fin fo:fao fr:fra,fre "
    "gl:glg gu:guj ha:hau he:heb hi:hin hr:hrv,scr ht:hat hu:hun hy:hye,arm id:ind is:isl,ice it:ita ja:jpn jw:jav "
    "ka:kat,geo kk:kaz km:khm kn:kan ko:kor la:lat lb:ltz ln:lin lo:lao lt:lit lv:lav mg:mlg mi:mri,mao mk:mkd,mac "
    "ml:mal mn:mon mr:mar ms:msa,may mt:mlt my:mya,bur ne:nep nl:nld,dut nn:nno no:nor,nob oc:oci pa:pan pl:pol "
    "ps:pus pt:por ro:ron,rum ru:rus sa:san sd:snd si:sin sk:slk,slo sl:slv sn:sna so:som sq:sqi,alb sr:srp,scc "
    "su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha tk:tuk tl:tgl,fil tr:tur tt:tat uk:ukr ur:urd uz:uzb vi:vie "
    "yi:yid yo:yor zh:zho,chi,cmn"
)

#: Codes that were replaced, or are more special than Whisper's.
_OTHERS = {"iw": "he", "ji": "yi", "in": "id", "jv": "jw", "nb": "no", "mo": "ro"}

_BY_THREE_LETTERS = {
    name: code
    for code, _, names in (entry.partition(":") for entry in _THREE_LETTERS.split())
    for name in names.split(",")
}

_CODES = (
    {code: code for code in LANGUAGES}
    | {name.lower(): code for code, name in LANGUAGES.items()}
    | _BY_THREE_LETTERS
    | _OTHERS
)


def language_code(text: str) -> str:
    """Whisper's code for `eng`, `en-US`, `English`, `ger`; the text itself in small letters where it has none."""
    text = text.strip().lower()
    return _CODES.get(text) or _CODES.get(text.replace("_", "-").partition("-")[0], text)
