"""Chinese and Japanese: our own sentences, put together by dice."""

from __future__ import annotations

from suites.corpus.compose.chance import Chance

_WHO = (
    "老王",
    "小梅",
    "船长",
    "邮递员",
    "图书管理员",
    "木匠",
    "测量员",
    "面包师",
    "守塔人",
    "学生们",
)
_WHERE = (
    "河边的仓库",
    "旧火车站",
    "山顶的天文台",
    "城南的市场",
    "港口",
    "学校后面的花园",
    "档案馆",
)
_WHAT = ("一盏没有灯芯的油灯", "三袋大米", "一封没有署名的信", "两张地图", "一把旧钥匙", "半箱苹果")
_WHEN = ("清晨", "傍晚", "下雪的那天", "星期三上午", "月底", "涨潮之前", "第二天中午")
_OPEN = (
    "{when}，{who}走到{where}，发现门口放着{what}。",
    "{who}在{where}工作了{years}年，从来没有丢过{what}。",
    "听说{where}要关门了，{who}{when}就赶去取{what}。",
    "{when}的时候，{where}已经没有人了，只有{who}还在数{what}。",
)
_MIDDLE = (
    "每个价格是{price}元，买{count}个一共{sum}元。",
    "{other}说，先把号码抄下来，再核对一遍，就不会出错。",
    "桥修好以前，大家都得绕路，多走{years}公里。",
    "天气预报说有雨，可是一整天都是晴天。",
    "如果两次测量的结果不一样，就要从头再来。",
    "{other}点了点头，没有说话，把本子合上了。",
    "从这里到{where2}要坐{count}站公共汽车。",
)
_END = (
    "最后他们决定把东西留在原来的地方。",
    "后来谁也没有再提起这件事。",
    "那天晚上，{who}把经过写在了日记里。",
    "问题的答案其实写在第一页上。",
)
_JA_WHO = ("田中さん", "駅長", "大工の健一", "司書の由美", "船頭", "先生", "祖母")
_JA_WHERE = ("古い灯台", "川沿いの市場", "山の上の駅", "港の倉庫", "小学校の図書室", "町の博物館")
_JA_WHAT = ("青い手帳", "鍵の束", "地図の写し", "三つの箱", "割れた時計", "手紙")
_JA = (
    "{who}は毎朝{hour}時に{where}へ行き、{what}を確かめます。",
    "{where}の前で{what}を見つけたのは{who}でした。",
    "一つ{price}円なので、{count}個で{sum}円になります。",
    "雨が降り出したため、{who}は{where}で少し休むことにした。",
    "「{what}はどこですか」と聞かれて、{who}は窓のほうを指さした。",
    "二回数えて合わなければ、最初からやり直すのが決まりです。",
    "次の電車は{hour}時{minute}分に出ますから、まだ間に合います。",
    "{where}が閉まるのは月曜日だけなので、明日もう一度来てください。",
)


def chinese(chance: Chance, middles: int) -> str:
    """A paragraph: an opening, some sentences, an ending."""
    who, other = chance.some(_WHO, 2)
    where, where2 = chance.some(_WHERE, 2)
    price, count = chance.number(2, 35), chance.number(3, 12)
    slots = {
        "who": who, "other": other, "where": where, "where2": where2, "what": chance.pick(_WHAT),
        "when": chance.pick(_WHEN), "years": chance.number(2, 30), "price": price,
        "count": count, "sum": price * count,
    }  # fmt: skip
    patterns = [chance.pick(_OPEN), *chance.some(_MIDDLE, middles), chance.pick(_END)]
    return "".join(pattern.format(**slots) for pattern in patterns)


def japanese(chance: Chance, sentences: int) -> str:
    """Sentences about one person, one place and one thing."""
    price, count = chance.number(4, 40) * 10, chance.number(2, 9)
    slots = {
        "who": chance.pick(_JA_WHO), "where": chance.pick(_JA_WHERE), "what": chance.pick(_JA_WHAT),
        "hour": chance.number(5, 11), "minute": chance.number(10, 59), "price": price,
        "count": count, "sum": price * count,
    }  # fmt: skip
    return "".join(pattern.format(**slots) for pattern in chance.some(_JA, sentences))


def cjk(seed: int) -> str:
    """Two documents in three are Chinese."""
    chance = Chance(seed)
    if seed % 3 == 2:
        return japanese(chance, chance.number(3, 5))
    return chinese(chance, chance.number(2, 4))
