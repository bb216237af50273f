"""The page's style sheet: light and dark, narrow and wide, screen and paper."""

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--bg:#fbfaf8;--card:#fff;--ink:#1d2327;--soft:#5d666c;--line:#dcdfe0;
--c0:#0b6fa4;--c1:#c2570c;--c2:#2e7d4f;--c3:#8e4a9e;--c4:#a67c00;--c5:#b3395b;--c6:#3b8f8f;
--c7:#6b6b6b;--bad:#b3261e;--good:#2e7d4f}
@media (prefers-color-scheme:dark){:root{--bg:#14181b;--card:#1c2226;--ink:#e6e8e9;--soft:#9aa4aa;
--line:#343c41;--c0:#5ab4e5;--c1:#f0934a;--c2:#6cc48e;--c3:#c58ad3;--c4:#d9b94c;--c5:#e87f9c;
--c6:#6fc7c7;--c7:#b0b0b0;--bad:#f2837b;--good:#6cc48e}}
@media print{:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;
--c0:#0b6fa4;--c1:#c2570c;--c2:#2e7d4f;--c3:#8e4a9e;--c4:#a67c00;--c5:#b3395b;--c6:#3b8f8f;
--c7:#6b6b6b;--bad:#b3261e;--good:#2e7d4f}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:1.2rem 1rem 3rem;background:var(--bg);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.2rem 0}
h2{font-size:1.15rem;margin:2.2rem 0 .7rem;
border-bottom:1px solid var(--line);padding-bottom:.25rem}
p{margin:.4rem 0}.soft,figcaption,dt,th{color:var(--soft)}.bad{color:var(--bad)}
.good{color:var(--good)}
.tiles,.plots{display:grid;gap:.8rem}
.tiles{grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));margin:1rem 0}
.tile,figure{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:0;
padding:.6rem .75rem}
.tile b{display:block;font-size:1.35rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile small{color:var(--soft);display:block;line-height:1.3}
.plots{grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr))}
figure{break-inside:avoid;min-width:0}figcaption{font-weight:600;margin-bottom:.3rem}
svg{display:block;width:100%;height:auto}
svg text{font:12.5px system-ui,sans-serif;fill:var(--soft)}
.end{text-anchor:end}.mid{text-anchor:middle}.start{text-anchor:start}
path,polyline{fill:none}.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.mark{stroke:var(--bad);stroke-width:2}.level{stroke:var(--soft);stroke-dasharray:5 4}
.curve{stroke-width:2;stroke-linejoin:round}.faint{stroke:var(--soft);stroke-width:1;opacity:.35}
.point{stroke:none}.dot{fill:var(--good);stroke:var(--card);stroke-width:1.5}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}
.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}.c6{stroke:var(--c6)}.c7{stroke:var(--c7)}
circle.c0{fill:var(--c0)}circle.c1{fill:var(--c1)}circle.c2{fill:var(--c2)}
circle.c3{fill:var(--c3)}circle.c4{fill:var(--c4)}circle.c5{fill:var(--c5)}
circle.c6{fill:var(--c6)}circle.c7{fill:var(--c7)}circle.faint{fill:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:.15rem .9rem;list-style:none;margin:.4rem 0 0;padding:0;
font-size:.85rem}
.legend i{display:inline-block;width:.9rem;height:.28rem;border-radius:2px;margin-right:.4rem;
vertical-align:middle;print-color-adjust:exact}
.b0{background:var(--c0)}.b1{background:var(--c1)}.b2{background:var(--c2)}.b3{background:var(--c3)}
.b4{background:var(--c4)}.b5{background:var(--c5)}.b6{background:var(--c6)}.b7{background:var(--c7)}
.none{color:var(--soft);font-style:italic}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);
vertical-align:top;overflow-wrap:normal}
th{font-weight:600;white-space:nowrap}td.n,th.n{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}
dl{display:grid;
grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:.1rem 1.5rem;
margin:.3rem 0}dl div{display:flex;justify-content:space-between;gap:1rem;
border-bottom:1px solid var(--line)}dd{margin:0;font-variant-numeric:tabular-nums;text-align:right}
h3{font-size:.95rem;margin:1rem 0 .2rem}summary{cursor:pointer;padding:.3rem 0}
footer{margin-top:2.5rem;color:var(--soft);font-size:.85rem}
"""
