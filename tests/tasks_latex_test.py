"""Answers in LaTeX and in words: what is equal, and what must not be taken for it."""

import pytest

from lcrl.tasks import extract, latex, scorers
from lcrl.tasks.extract import score_extracted
from lcrl.tasks.task import BadFormat

EQUAL = r"""
\text{west} | west | \textbf{West} | \mathrm{west} | \text{west}.
\text{(D)} | D | (D) | \text{D} | \textbf{(D)}
No | no | \text{no}
\text{no solution} | no solution
\text{June 5} | June 5
3\sqrt{7} | 3\sqrt7 | \sqrt{63} | $3\sqrt{7}$ | \(3\sqrt{7}\) | 3 \sqrt {7}
4\pi | 4π | 4pi | 4 \pi | 4\pi \text{ cm}^2
-7 | −7 | -7. | x = -7
(1,2) | \left(1,2\right) | ( 1, 2 ) | (1,\,2) | \langle 1, 2 \rangle
(\frac12,3) | (0.5,3) | \left(\dfrac{1}{2},3\right)
[0,1) | \left[0,1\right)
(-\infty,2)\cup(3,\infty) | (-\infty, 2) ∪ (3, \infty)
x \in [-3,8] | [-3,8]
\{1,2\} | 1,2 | 2,1 | \{2,1\} | 1\text{ and }2 | x=1 or x=2 | \left\{1,2\right.
2 \pm \sqrt{3} | 2+\sqrt{3}, 2-\sqrt{3}
(1,2),(3,4) | (3,4),(1,2)
5+8i | 8i+5 | 5 + 8 i | 5+8\mathrm{i}
-1 | i^2 | e^{i\pi}
2i | \sqrt{-4}
5\text{ cm} | 5 | 5 cm | 5cm | 5\,\mathrm{cm} | 5 \text{ centimeters}
8 \mbox{ inches}^2 | 8\text{ in}^2 | 8 square inches | 8
\$18.90 | 18.90 | 18.9 \text{ dollars} | \$18.9
\$32,\!500 | 32500 | 32,500 | 32{,}500 | 32\,500 | 32 500
90^\circ | 90 | 90 degrees | 90° | 90^{\circ}
60\% | 60 | 0.6 | 60 percent | 60\text{ percent} | 60%
6 | 6\text{ ways} | 6 apples | \boxed{6} | 06
2\frac{3}{5} | 13/5 | 2.6 | 2 3/5 | 2\frac35 | \frac{13}{5}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{bmatrix}1\\2\end{bmatrix}
\begin{pmatrix} 1 & 0 \end{pmatrix} | \left(\begin{array}{cc}1 & 0\end{array}\right)
x=1, y=2 | \begin{cases} x=1 \\ y=2 \end{cases}
10^6 | 1000000 | 10^{6} | 1e6 | 10⁶ | 10**6
0.0025 | 2.5\times10^{-3} | \frac{1}{400}
\frac16 | 0.1\overline{6} | \frac{2}{12} | 1/6
\emptyset | \varnothing | \{\}
\infty | infinity
52_8 | 52_{8}
12 | (3)(4) | 3 \cdot 4 | 3×4
(x-1)(x+1) | x^2-1
n! | n!
x>5 | 5<x
2x+3 | f(x)=3+2x
3y=2x+3 | 3y = 3+2x
7 | \underline{7} | \boldsymbol{7} | \textcolor{red}{7} | \color{blue}7 | \large 7 | **7** | = 7
18 | \text{18 ways} | \text{18} | \text{Answer: }18
\$7.50 | \text{\$7.50}
35\% | 35\text{\%} | \text{35\%}
66\frac{2}{3}\% | \frac{200}{3}\% | \frac{2}{3}
\frac{2}{9} | 0.222\ldots | 0.2222...
\frac{1\pm\sqrt{5}}{2} | x=\frac{1\pm\sqrt5}{2} | \frac{1-\sqrt5}{2}, \frac{1+\sqrt5}{2}
(1,\pm2) | (1,-2),(1,2)
(3,-2) | x=3, y=-2 | y=-2, x=3
p=1, q=2 | (p,q)=(1,2) | (q,p)=(2,1)
1,2 | x_1=2, x_2=1
z=1+2i | 1+2i | z = 2i+1
k\ne 2 | 2 \neq k | k≠2
x\ne2, x\ne3 | x\neq3,\ x\neq2
(0,4] | 0<x\le4 | 4\ge x>0
(-\infty,\infty) | \mathbb R | \text{all real numbers}
\sin 20^\circ | \cos 70^\circ | \sin(20^{\circ})
\text{(B)} | \textbf{(B)}\ 42 | B. 42 | B) | \text{Option B}
\text{2:30 p.m.} | 2:30\text{ PM} | 2:30 pm
3:2 | \text{3:2}
\log_2 3 | \log_{2}3 | \log_2(3)
\frac 1 2 | 0.5
"""  # noqa: RUF001
WRONG = r"""
3 | 3\sqrt{2} | 3t | 3h | 3 4 | 3^2 | 3! | \frac{3}{x} | -3 | \pm3
3\sqrt2 | 3 | 2\sqrt3
2 | 2\pi | 2i | 2x
2\pi | 2
10 | 10^6 | 10^{6} | 10⁶
7 | 3 4 | (3)(4)
12 | 3\,4 | 1_2 | 1,2
34 | 3,4
(1,2) | (2,1) | 1,2 | \{1,2\} | [1,2] | (1,3)
1,2 | (1,2) | 1,3 | 1.2 | 1
[0,1) | (0,1) | [0,1] | (0,1]
(2,\infty) | [2,\infty) | (-\infty,2)
-x | x | \text{x}
x | -x | y
x=5 | y=5 | x=-5
0 | 3x - 2y = 0 | \emptyset
5+8i | 5-8i | 13 | 5+8
\text{west} | east | \text{east}
west | stew
\text{odd} | even
52_8 | 52_9 | 52
52 | 52_8
5\text{ cm} | 5\text{ m} | 5\text{ cm}^2 | 5 feet | 6 cm
\$36 | 36^\circ
5t | 5 | 5s
3R^2 | 3r^2
2\frac35 | \frac35 | 2 | 2 5/3
60\% | 6\%
.0000672 | .0000671 | 0.00007 | 0
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}2\\1\end{pmatrix} | 3
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1&2\end{pmatrix}
1/3 | 0.33 | 3
x=1, y=2 | x=2, y=1 | 1,2 | 2,1
10\text{ a.m.} | 10\text{ p.m.} | 10
n\text{ is even} | n\text{ is odd} | n
x>5 | x \ge 5 | x<5
\log 2 | 2
66\frac{2}{3}\% | 66\frac13\% | 66
\frac{1\pm\sqrt{5}}{2} | \frac{1+\sqrt{5}}{2} | \frac{-1\pm\sqrt{5}}{2}
(1,\pm2) | (1,2) | (1,-2,2)
(3,-2) | x=-2, y=3 | x=3
p=1, q=2 | (q,p)=(1,2) | [1,2)
1,2 | x_1=1, x_2=3 | a=1, b=2
z=1+2i | z=1-2i | w=1+2i
k\ne 2 | k\ne 3 | k=2 | m \ne 2
(0,4] | 0<x<4 | 0\le x\le4
\sin 20^\circ | \sin 20 | \cos 20^\circ
\text{(B)} | \text{(A) } B | (A), (B) | B+1
2:30\text{ p.m.} | 2:30\text{ a.m.} | 2:30
0.111 | 0.1112345...
"""


def pairs(table: str) -> list[tuple[str, str]]:
  rows = [line.split(" | ") for line in table.strip().split("\n")]
  return [(first, other) for first, *others in rows for other in (first, *others)]


def right(answer: str, reference: str, find=extract.boxed) -> bool:
  try:
    return score_extracted(answer, reference, extract=find, score=scorers.math) == 1.0
  except BadFormat:
    return False


def test_what_is_equal():
  bad = [pair for pair in pairs(EQUAL) if not right(rf"so \boxed{{{pair[1]}}}.", pair[0])]
  assert not bad
  bad = [p for p in pairs(EQUAL) if not right(f"<answer>{p[1]}</answer>", p[0], extract.answer_tag)]
  assert not bad


def test_what_is_not_equal():
  others = [(reference, answer) for reference, answer in pairs(WRONG) if answer != reference]
  assert not [pair for pair in others if right(rf"so \boxed{{{pair[1]}}}.", pair[0])]
  firsts = list(dict.fromkeys(reference for reference, _ in pairs(EQUAL)))
  crossed = [(a, b) for shift in (1, 11) for a, b in zip(firsts, firsts[shift:], strict=False)]
  assert not [pair for pair in crossed if right(rf"\boxed{{{pair[1]}}}", pair[0])]


@pytest.mark.parametrize(
  "response, reference, score",
  [
    ("so it is \\boxed{3\\sqrt{2}}.", "3", 0.0),
    ("The answer is $2\\pi$", "2", 0.0),
    ("It is \\(\\frac{1}{2}\\).", "0.5", 1.0),
    ("Final answer: $x=2$ or $x=3$", "2,3", 1.0),
    ("The answer is \u22125", "-5", 1.0),
    ("3\\sqrt{2}", "3", 0.0),
    ("12 apples", "12", 1.0),
    ("West", "\\text{west}", 1.0),
    ("The answer is 2\\pi", "2", None),
    ("none", "7", None),
    ("**12**", "12", 1.0),
    ("= 12", "12", 1.0),
    ("So she pays \\$12.", "12", 1.0),
    ("<answer>The answer is 12</answer>", "12", 1.0),
    ("<answer>It is more than 12</answer>", "12", 0.0),
    ("<answer>It is not 12</answer>", "12", 0.0),
  ],
)
def test_a_whole_response(response, reference, score):
  if score is None:
    with pytest.raises(BadFormat):
      scorers.math(response, reference)
  else:
    answer = extract.answer_tag(response) or response
    assert scorers.math(answer, reference) == score


@pytest.mark.parametrize("reference", ["", "$", "\\frac{1}{", "x = ", "3 4", "\\foo{3}"])
def test_a_reference_that_says_nothing_is_an_error(reference):
  assert latex.read(reference) is None
  with pytest.raises(ValueError, match="is no mathematics"):
    scorers.math("7", reference)
