"""Makes `packs/sample`, the pack of an invented city: same program, same bytes.

    python -m packs.make_sample [FOLDER]

The city lies in open sea, so that no real place is meant.  Its grid is a bent and jittered lattice of street blocks:
every corner and every bend of a border is made once, as integers of 1e-7 degree, and shared by all cells around it, and
the outer levels are traced along the borders of their cells.  So neighbours and levels fit exactly, after rounding and
on every machine; no geometry library takes part.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np

from geo.datum import from_wgs84

SEED = 20260601
CENTRE_LON_DEG, CENTRE_LAT_DEG = 119.95, 38.75
METERS_A_DEGREE_LAT = 111_000.0
METERS_A_DEGREE_LON = METERS_A_DEGREE_LAT * math.cos(math.radians(CENTRE_LAT_DEG))
PITCH_M = 145.0
"""Mean width of a cell: a 万米网格 is 100 to 190 m wide."""
JITTER_M, BEND_M = 24.0, 7.0
COLUMNS, ROWS = 25, 20
BAND_ROWS, BLOCK_COLUMNS = 5, 5
"""Communities are blocks of about 5 by 5 cells; five side by side in each of four bands."""

# First and last column of each row, south to north: a coast, not a rectangle.
FIRST = (4, 3, 2, 2, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 2, 2, 3, 4, 5)
LAST = (19, 21, 22, 23, 23, 24, 24, 24, 23, 23, 24, 24, 24, 23, 23, 22, 22, 21, 20, 18)

HILL = frozenset((i, j) for i in (11, 12, 13) for j in (7, 8))
"""Blocks on 翠屏山 that belong to a community and have no grid cell yet: the fallback to the community shows here."""
QUAY = frozenset((i, 0) for i in (4, 5, 6))
"""Blocks of the old quay that belong to a street and to no community yet: the fallback to the street."""

OTHER_LAYER = "综治"
"""The grid of social governance: 3 by 3 blocks each, across the borders of communities and streets, 20-digit codes."""
OTHER_SIDE = 3
OTHER_ROWS = range(1, 14)
"""Further north that layer has not been drawn yet, nor where the coast leaves less than 3 by 3 blocks."""

CITY_NAME, CITY_CODE = "云汀市", "990100"
COUNTIES = (("990101", "临澜区"), ("990102", "望岫区"))
# Street: county, code, name, and the (band, block) of its communities.
STREETS = (
    (0, "001", "青塘街道", ((0, 0), (0, 1), (1, 0), (1, 1))),
    (0, "002", "石埠街道", ((2, 0), (2, 1), (3, 0), (3, 1))),
    (0, "003", "翠屏街道", ((0, 2), (1, 2), (2, 2), (3, 2))),
    (1, "001", "白鹭街道", ((0, 3), (0, 4), (1, 3), (1, 4))),
    (1, "002", "松坪街道", ((2, 3), (2, 4), (3, 3), (3, 4))),
)
COMMUNITY_NAMES = {
    (0, 0): "旧码头社区", (0, 1): "盐仓社区", (1, 0): "青塘社区", (1, 1): "荷风社区",
    (2, 0): "石埠社区", (2, 1): "染坊社区", (3, 0): "西陂社区", (3, 1): "鼓楼坪社区",
    (0, 2): "临潮社区", (1, 2): "翠屏社区", (2, 2): "书院社区", (3, 2): "北苑社区",
    (0, 3): "鹭洲社区", (0, 4): "东堤社区", (1, 3): "银杏社区", (1, 4): "望岫社区",
    (2, 3): "松坪社区", (2, 4): "砚湖社区", (3, 3): "枫桥头社区", (3, 4): "梨园社区",
}  # fmt: skip
# Roads run along lattice lines.
EAST_WEST_ROADS = ((2, "临潮路"), (5, "盐仓路"), (8, "荷风路"), (11, "书院路"), (14, "鼓楼路"), (17, "北苑路"))
NORTH_SOUTH_ROADS = ((3, "旧码头街"), (7, "青塘街"), (11, "染坊街"), (15, "翠屏大道"), (18, "银杏街"), (21, "砚湖街"))
# Kind of place: its names, accuracy of a position that is only its name, metres.
PLACES = (
    (("青塘小学", "盐仓小学", "荷风小学", "书院小学", "松坪小学", "鹭洲小学", "云汀一中", "云汀二中", "临澜实验学校",
      "望岫中学", "砚湖幼儿园", "梨园幼儿园"), 60),
    (("旧码头农贸市场", "青塘菜市场", "染坊街夜市", "石埠水产市场", "银杏农贸市场", "松坪菜市场", "东堤花鸟市场",
      "北苑农贸市场"), 50),
    (("云汀广场", "临潮广场", "书院广场", "白鹭广场", "松坪广场", "鼓楼坪广场"), 80),
    (("翠屏山公园", "荷风公园", "砚湖公园", "东堤湿地公园", "枫桥头游园", "西陂游园"), 150),
    (("云汀市人民医院", "临澜区中医院", "望岫区医院", "白鹭街道卫生院"), 80),
    (("云汀汽车站", "青塘公交场", "白鹭公交枢纽", "松坪换乘站", "旧码头客运站"), 60),
    (("盐仓桥", "染坊桥", "枫桥", "东堤闸", "砚湖桥", "青塘桥"), 40),
    (("荷风里小区", "青塘苑", "盐仓新村", "临潮花园", "书香名邸", "翠屏山庄", "石埠新村", "染坊小区", "西陂家园",
      "鼓楼坪小区", "北苑小区", "银杏公寓", "鹭洲花园", "东堤一号院", "望岫新城", "松坪小区", "砚湖雅居", "枫桥头新村",
      "梨园小区", "锦澜苑", "听潮里", "汀兰苑", "岫云居", "长风公寓", "旧码头里弄", "渔港新村", "海棠苑", "知行苑",
      "工农新村", "和平里"), 70),
    (("云汀百货", "澜悦广场商场", "白鹭商业街", "砚湖步行街", "望岫建材城", "松坪五金城", "临潮酒店", "青塘加油站",
      "书院加油站", "东堤污水处理厂", "石埠变电站", "北苑垃圾转运站", "翠屏热力站", "盐仓泵站", "砚湖泵站",
      "云汀图书馆", "云汀体育馆", "鹭洲派出所"), 60),
)  # fmt: skip

# What people say instead; `|` parts several.
ALIASES = {
    "云汀一中": "云汀第一中学|市一中",
    "云汀二中": "云汀第二中学|市二中",
    "云汀市人民医院": "市人民医院|云汀人民医院",
    "云汀汽车站": "云汀长途汽车站|市汽车站",
    "翠屏山公园": "翠屏公园",
    "荷风里小区": "荷风里",
}
# Names that two places share, their accuracy in metres, and the communities that they lie in: the first pair is told
# apart by the county named beside it, the second only by the street.
SHARED_NAMES = (("便民市场", 50, ((0, 0), (2, 4))), ("工人文化宫", 80, ((2, 1), (0, 2))))
COMMUNITY_ACCURACY_M = 300
"""Five blocks wide, so a point in it lies 0.41 of 725 m from its middle (root mean square)."""

CATALOGUE_HEAD = """\
# What kinds of events 云汀市 (an invented city) knows, how near and how soon two reports must be to be one of them, and
# what each source calls them.  Codes follow GB/T 47678.5-2026 where it has one; 90xxx is the city's own range, for that
# standard has no class for sudden events.  Made by packs/make_sample.py; in a real city people edit this file.
"""
MATCH = """
# How it is weighed whether a report speaks of an incident that is near: evidence adds up, in points; 100 more make it
# ten times as likely.  Set by hand, from how the city's sources err (city.toml) and how often things happen here.
[match]
# Before any evidence.  Half of what is reported was reported before, but a wrong join costs more than a second one.
prior = -50
# As much again against what has been closed since: every second time it is another.
reopening = -75
# Up to four standard deviations of the vaguer position count as near.  How vague it is, is weighed besides.
sigmas = 4
# Other incidents of a kind that a square kilometre has at a time; the busier kinds say it themselves.
alike_km2 = 0.03
# Most further reports come within the hour, few the next day: the logarithm of the time counts, half as much again.
decay_s = 1800
gap_percent = 150
# A camera, a gauge, an asset, an address, or a few metres.  That is no more than nearness says already.
same_place_m = 5
same_place = 0
same_place_decay_s = 3600
# Of what the texts say.
text_percent = 100
# Where several of the kind are near, as in a storm, being near says less, and less still where one of them is nearly as
# likely.
busy_percent = 100
rival_percent = 100
# Sources mistake one of ten things for another of its group.
unrelated = 0.1
# For six hours a report that joined by nearness alone may go with a neighbour that suits it three times better.
rethink = 50
rethink_s = 21600
[match.again]
# Who calls again means the same thing; a worker who files again has come to the next one.
hotline = 100
patrol = -250
[match.pairs]
# What one worker has filed, another seldom files as well.
patrol-patrol = -100
# A second caller or camera is likelier than one of another source to speak of the same.
hotline-hotline = 50
video-video = 50
"""
ALIKE_KM2 = {
    "refuse": 0.6, "covers": 0.3, "piles": 0.2, "road-surface": 0.2, "device": 0.2, "adverts": 0.15, "lamps": 0.1,
    "street-trade": 0.1, "cycles": 0.1, "water-on-road": 0.05,
}  # fmt: skip
# Written above the first use of a key.
WHY = {
    "code": "Five digits, class and item; a string, for 06001 keeps its zero.",
    "name": "What people read; never used to match.",
    "group": "Only categories of one group can be the same event: people and cameras confuse these.",
    "radius_m": "How far from the incident another report may lie.  Some shop fronts for stalls, a crossing for water.",
    "window_s": "How long after the last report the next one still joins: about as long as the thing is seen.",
    "accuracy_cap_m": "How much the inaccuracy of a position may widen the radius at most.",
    "alike_km2": "How many others of the kind a square kilometre has at a time, where more than elsewhere.",
    "reopen_s": "How long after closing the same thing counts as not repaired (返工) and not as a new event.",
    "event": "false: answered, not dispatched.  Such a ticket opens no incident.",
    "priority": "1 (life and limb) to 4 (can wait for the next round).",
    "department": "Who gets it: an office or a post, never a person.",
    "confirm_below": "An incident that is less sure stays suspected and is told to nobody until another camera, a "
    "call or\n# a grid worker confirms it.",
    "confidence": "How far one report of a source is believed about this category, where not as about any other.",
    "sla": "The time limit and its clock: urgent_hour runs through the night, work_hour rests outside office hours.",
    "labels": "What each source calls it.  A label stands for one category of its source, or it could not be mapped.",
}
HOUR, DAY = 3_600, 86_400
# code, name, group, radius_m, window_s, reopen_s, priority, department, sla amount, sla unit,
# hotline labels, iot alarms, video event types.  A grid worker's label is the name itself.
CATEGORIES: tuple[tuple[str, str, str, int, int, int, int, str, int, str, str, str, str], ...] = (
    ("06001", "私搭乱建", "building", 50, 30 * DAY, 30 * DAY, 4, "综合行政执法队", 7, "work_day",
     "违章建筑 私搭乱建投诉", "", ""),
    ("06010", "暴露垃圾", "refuse", 40, 1 * DAY, 7 * DAY, 3, "环境卫生服务中心", 4, "work_hour",
     "垃圾乱扔 垃圾未清运", "", "garbage_exposed"),
    ("06011", "积存垃圾渣土", "refuse", 50, 3 * DAY, 7 * DAY, 3, "环境卫生服务中心", 1, "work_day",
     "建筑垃圾堆积 渣土堆放", "", "rubble_pile"),
    ("06042", "垃圾站(箱)满溢", "refuse", 35, 12 * HOUR, 3 * DAY, 3, "环境卫生服务中心", 4, "work_hour",
     "垃圾桶满溢 垃圾站异味", "bin_full", "bin_overflow"),
    ("06012", "道路不洁", "road-surface", 60, 12 * HOUR, 3 * DAY, 4, "环境卫生服务中心", 4, "work_hour",
     "道路保洁不到位", "", "road_dirty"),
    ("06013", "道路破损", "road-surface", 40, 7 * DAY, 15 * DAY, 3, "市政养护中心", 3, "work_day",
     "路面坑洼 人行道破损", "", "road_damage"),
    ("06014", "道路遗撒", "road-surface", 80, 6 * HOUR, 1 * DAY, 3, "环境卫生服务中心", 2, "urgent_hour",
     "路面抛洒物", "", "road_spill"),
    ("06017", "绿地脏乱", "greenery", 50, 3 * DAY, 7 * DAY, 4, "园林绿化中心", 1, "work_day",
     "绿化带脏乱", "", ""),
    ("06020", "焚烧垃圾树叶", "fire", 80, 4 * HOUR, 1 * DAY, 2, "综合行政执法队", 2, "urgent_hour",
     "露天焚烧", "", "open_burning"),
    ("06025", "水域不洁", "river", 100, 2 * DAY, 7 * DAY, 3, "河道管护所", 1, "work_day",
     "河道漂浮物 水体发黑", "", "river_litter"),
    ("06027", "油烟污染", "fumes", 50, 3 * DAY, 15 * DAY, 3, "生态环境执法队", 2, "work_day",
     "餐饮油烟扰民", "fume_over", ""),
    ("06028", "噪声扰民", "noise", 100, 6 * HOUR, 3 * DAY, 3, "综合行政执法队", 4, "urgent_hour",
     "社会生活噪音 广场舞噪音", "noise_over", ""),
    ("06029", "露天烧烤", "barbecue", 50, 6 * HOUR, 3 * DAY, 3, "综合行政执法队", 4, "urgent_hour",
     "占道烧烤", "", "bbq"),
    ("06030", "乱倒乱排污水", "sewage", 50, 1 * DAY, 7 * DAY, 2, "排水管理处", 1, "work_day",
     "污水直排", "", "sewage_dumping"),
    ("06034", "废弃车辆", "wreck", 25, 30 * DAY, 30 * DAY, 4, "综合行政执法队", 5, "work_day",
     "僵尸车清理", "", ""),
    ("06036", "乱堆杂物", "piles", 40, 3 * DAY, 7 * DAY, 4, "社区居委会", 1, "work_day",
     "楼道堆物 杂物占道", "", "clutter"),
    ("08006", "施工物料乱堆放", "piles", 60, 3 * DAY, 7 * DAY, 3, "住建执法队", 1, "work_day",
     "工地材料乱堆", "", "site_material"),
    ("07001", "非法小广告", "adverts", 30, 3 * DAY, 7 * DAY, 4, "环境卫生服务中心", 1, "work_day",
     "小广告张贴", "", ""),
    ("07003", "违规户外广告", "adverts", 40, 15 * DAY, 30 * DAY, 4, "综合行政执法队", 5, "work_day",
     "广告牌违规设置", "", "illegal_ad"),
    ("08001", "施工扰民", "site-noise", 120, 8 * HOUR, 3 * DAY, 3, "住建执法队", 4, "urgent_hour",
     "夜间施工噪音", "", ""),
    ("08002", "施工占道", "site-road", 60, 3 * DAY, 7 * DAY, 3, "交通管理大队", 1, "work_day",
     "施工围挡占路", "", "site_on_road"),
    ("08003", "无证掘路", "digging", 60, 2 * DAY, 7 * DAY, 2, "市政养护中心", 4, "work_hour",
     "擅自挖路", "", ""),
    ("08004", "工地扬尘", "dust", 120, 8 * HOUR, 3 * DAY, 3, "生态环境执法队", 4, "urgent_hour",
     "工地扬尘污染", "dust_over", "site_dust"),
    ("08011", "渣土车未密闭", "tipper", 100, 1 * HOUR, 1 * DAY, 3, "综合行政执法队", 4, "urgent_hour",
     "渣土车撒漏", "", "mud_truck"),
    ("09001", "无照经营游商", "street-trade", 40, 3 * HOUR, 1 * DAY, 3, "综合行政执法队", 4, "urgent_hour",
     "流动摊贩", "", "vendor"),
    ("09005", "店外经营", "street-trade", 30, 6 * HOUR, 3 * DAY, 3, "综合行政执法队", 4, "work_hour",
     "商家出店经营", "", "stall_outside_shop"),
    ("09006", "占道经营", "street-trade", 40, 4 * HOUR, 1 * DAY, 3, "综合行政执法队", 4, "work_hour",
     "马路市场", "", "road_stall"),
    ("09009", "机动车乱停放", "parking", 30, 2 * HOUR, 1 * DAY, 3, "交通管理大队", 2, "urgent_hour",
     "违章停车", "", "illegal_parking"),
    ("09010", "非机动车乱停放", "cycles", 40, 6 * HOUR, 1 * DAY, 4, "综合行政执法队", 4, "work_hour",
     "电动车乱停", "", "bike_clutter"),
    ("09011", "共享单车乱象", "cycles", 40, 6 * HOUR, 1 * DAY, 4, "综合行政执法队", 4, "work_hour",
     "共享单车堆积", "", "shared_bike"),
    ("09012", "占用消防通道", "fire-lane", 40, 4 * HOUR, 3 * DAY, 2, "消防救援站", 2, "urgent_hour",
     "消防通道被堵", "fire_lane_occupied", "fire_lane"),
    ("10001", "道路积雪结冰", "snow", 150, 8 * HOUR, 1 * DAY, 2, "市政养护中心", 4, "urgent_hour",
     "道路结冰", "road_ice", "road_snow"),
    ("10002", "架空线缆脱落", "cables", 50, 1 * DAY, 7 * DAY, 2, "通信管线公司", 4, "urgent_hour",
     "电线垂落 通信线缆脱落", "", "cable_down"),
    ("01001", "供水井盖", "covers", 20, 5 * DAY, 15 * DAY, 2, "自来水公司", 4, "urgent_hour",
     "自来水井盖问题", "water_cover_tilt", ""),
    ("01002", "污水井盖", "covers", 20, 5 * DAY, 15 * DAY, 2, "排水管理处", 4, "urgent_hour",
     "下水道井盖损坏", "sewer_cover_tilt", "cover_missing"),
    ("01003", "雨水井盖", "covers", 20, 5 * DAY, 15 * DAY, 2, "排水管理处", 4, "urgent_hour",
     "雨水篦子缺失", "rain_cover_tilt", ""),
    ("01005", "电力井盖", "covers", 20, 5 * DAY, 15 * DAY, 2, "供电公司", 4, "urgent_hour",
     "电力井盖松动", "power_cover_tilt", ""),
    ("01011", "燃气井盖", "covers", 20, 5 * DAY, 15 * DAY, 2, "燃气公司", 4, "urgent_hour",
     "燃气井盖异响", "gas_cover_tilt", ""),
    ("01013", "消防设施", "hydrants", 25, 7 * DAY, 15 * DAY, 2, "消防救援站", 1, "work_day",
     "消火栓损坏", "hydrant_pressure_low", ""),
    ("01037", "路灯", "lamps", 40, 5 * DAY, 15 * DAY, 3, "路灯管理所", 1, "work_day",
     "路灯不亮 路灯损坏", "lamp_fault", "lamp_off"),
    ("01067", "防汛监测设施", "flood-gauges", 30, 3 * DAY, 15 * DAY, 2, "防汛办公室", 8, "urgent_hour",
     "", "gauge_fault", ""),
    ("02010", "交通标志牌", "signs", 30, 7 * DAY, 15 * DAY, 3, "交通管理大队", 2, "work_day",
     "交通标志损坏", "", "sign_damaged"),
    ("02014", "交通信号灯", "signals", 40, 1 * DAY, 7 * DAY, 2, "交通管理大队", 2, "urgent_hour",
     "红绿灯故障", "signal_fault", "signal_off"),
    ("02017", "交通护栏", "railings", 40, 5 * DAY, 15 * DAY, 3, "交通管理大队", 1, "work_day",
     "护栏倒伏", "", "railing_down"),
    ("03001", "公共厕所", "toilets", 30, 2 * DAY, 7 * DAY, 4, "环境卫生服务中心", 1, "work_day",
     "公厕脏乱", "toilet_ammonia", ""),
    ("03005", "垃圾箱", "bins", 25, 5 * DAY, 15 * DAY, 4, "环境卫生服务中心", 1, "work_day",
     "果皮箱破损", "", ""),
    ("04002", "行道树", "trees", 30, 5 * DAY, 15 * DAY, 3, "园林绿化中心", 1, "work_day",
     "树木倒伏 树枝遮挡", "", "tree_down"),
    ("90001", "道路积水", "water-on-road", 120, 4 * HOUR, 1 * DAY, 1, "排水管理处", 1, "urgent_hour",
     "路面积水 暴雨内涝", "road_water_high", "waterlogging"),
    ("90002", "路面塌陷", "collapse", 60, 2 * DAY, 30 * DAY, 1, "市政养护中心", 1, "urgent_hour",
     "地面下陷", "ground_settlement", "road_collapse"),
    ("90003", "供水管爆裂", "water-on-road", 100, 12 * HOUR, 7 * DAY, 1, "自来水公司", 1, "urgent_hour",
     "水管爆裂 停水报修", "pipe_pressure_drop", "pipe_burst"),
    ("90004", "燃气泄漏", "gas", 100, 6 * HOUR, 7 * DAY, 1, "燃气公司", 1, "urgent_hour",
     "燃气异味", "gas_leak", ""),
    ("90005", "热力管泄漏", "heat", 80, 12 * HOUR, 7 * DAY, 1, "热力公司", 2, "urgent_hour",
     "暖气管漏水", "heat_leak", "steam"),
    ("90006", "下水道堵塞冒溢", "water-on-road", 60, 1 * DAY, 7 * DAY, 2, "排水管理处", 4, "urgent_hour",
     "下水道堵塞 污水冒溢", "sewer_level_high", "sewer_overflow"),
    ("90007", "火情烟雾", "fire", 120, 2 * HOUR, 1 * DAY, 1, "消防救援站", 1, "urgent_hour",
     "发现火情", "smoke_alarm", "fire_smoke"),
    ("90008", "森林火情", "fire", 400, 6 * HOUR, 1 * DAY, 1, "森林消防队", 1, "urgent_hour",
     "山上冒烟", "", "forest_fire"),
    ("90009", "空气质量超标", "air", 800, 3 * HOUR, 1 * DAY, 3, "生态环境执法队", 8, "urgent_hour",
     "空气异味", "pm25_over", ""),
    ("90010", "人群聚集", "crowd", 100, 2 * HOUR, 12 * HOUR, 2, "综合治理中心", 1, "urgent_hour",
     "人员聚集", "", "crowd"),
    ("90011", "交通事故", "accident", 80, 1 * HOUR, 6 * HOUR, 1, "交通管理大队", 1, "urgent_hour",
     "车辆碰撞", "", "accident"),
    ("90012", "河道水位超警", "river-level", 300, 6 * HOUR, 1 * DAY, 1, "防汛办公室", 1, "urgent_hour",
     "河水漫堤", "river_level_high", "river_flood"),
    ("90901", "设备离线", "device", 15, 1 * DAY, 3 * DAY, 4, "数据运维中心", 2, "work_day",
     "", "offline", "camera_offline"),
    ("90902", "设备故障", "device", 15, 3 * DAY, 7 * DAY, 4, "数据运维中心", 3, "work_day",
     "", "device_fault low_battery", "camera_fault"),
    ("90999", "其他事项", "other", 30, 1 * DAY, 7 * DAY, 4, "综合受理中心", 5, "work_day",
     "其他诉求", "", ""),
    ("99001", "咨询", "consultation", 0, 0, 0, 4, "综合受理中心", 5, "work_day",
     "政策咨询 办事咨询", "", ""),
    ("99002", "表扬", "praise", 0, 0, 0, 4, "综合受理中心", 5, "work_day",
     "表扬感谢", "", ""),
)  # fmt: skip
NO_EVENT = ("99001", "99002")
PASSING = ("06036", "09001", "09005", "09006", "09009", "09010", "09011")
"""What comes and goes and hurts nobody: one camera that is itself in doubt need not send anybody."""
MISTAKEN = ("09001",)
"""What cameras take other things for: every cart is a vendor's."""
RULES_AND_RELATED = """
# ---------------------------------------------------------------------------------------------------------- rules
# A reading becomes a report when it has been beyond its bound for `for_s` on end; after that, only a reading back
# within `clear` ends it.  Without the distance between the two, a value that trembles at its bound reports all day.
# A reading that says another `unit` is refused: 20 mm of water are no flood.

[[rule]]
metric = "road_water_cm"  # depth over the road, 15 cm stops a car
unit = "cm"
above = 15
clear = 10
for_s = 120
category = "90001"

[[rule]]
metric = "road_water_cm"  # no water is less than none: the gauge is at fault, not the street
unit = "cm"
below = -2
clear = -1
for_s = 1800
category = "01067"

[[rule]]
metric = "sewer_level_m"  # water below the cover
unit = "m"
above = 2.8
clear = 2.3
for_s = 300
category = "90006"

[[rule]]
metric = "gas_lel_pct"  # share of the lower explosive limit; no waiting
unit = "%LEL"
above = 10
clear = 5
for_s = 0
category = "90004"

[[rule]]
metric = "pipe_pressure_mpa"  # a burst is a fall
unit = "MPa"
below = 0.15
clear = 0.22
for_s = 60
category = "90003"

[[rule]]
metric = "river_level_m"
unit = "m"
above = 4.5
clear = 4.2
for_s = 600
category = "90012"

[[rule]]
metric = "pm25_ugm3"  # an hour, for one passing lorry is no air quality
unit = "ug/m3"
above = 115
clear = 75
for_s = 3600
category = "90009"

[[rule]]
metric = "pm25_ugm3"  # so much is smoke from close by; it need not last an hour, and goes before the air
unit = "ug/m3"
above = 400
clear = 150
for_s = 300
category = "06020"
priority = 1

[[rule]]
metric = "noise_db"
unit = "dB"
above = 70
clear = 62
for_s = 900
category = "06028"

[[rule]]
metric = "bin_fill_pct"
unit = "%"
above = 90
clear = 60
for_s = 600
category = "06042"

# -------------------------------------------------------------------------------------------------------- related
# How often a source means the one where another means the other, 0 to 1: a category is 1 to itself, `unrelated` to the
# rest of its group.

[[related]]
a = "06010"
b = "06011"
similarity = 0.3

[[related]]
a = "06010"
b = "06042"
similarity = 0.25

[[related]]
a = "09005"
b = "09006"
similarity = 0.3

[[related]]
a = "09001"
b = "09006"
similarity = 0.3

[[related]]
a = "06036"
b = "08006"
similarity = 0.2

[[related]]
a = "06012"
b = "06014"
similarity = 0.25

[[related]]
a = "06013"
b = "06014"
similarity = 0.15

[[related]]
a = "07001"
b = "07003"
similarity = 0.2

[[related]]
a = "90001"  # a blocked drain is how most water gets onto a road
b = "90006"
similarity = 0.25

[[related]]
a = "90001"
b = "90003"
similarity = 0.2

[[related]]
a = "90003"
b = "90006"
similarity = 0.15

[[related]]
a = "90007"
b = "90008"
similarity = 0.2

[[related]]
a = "06020"  # smoke is what a camera sees of either
b = "90007"
similarity = 0.2

[[related]]
a = "01002"  # few callers can tell a sewer's cover from a storm drain's
b = "01003"
similarity = 0.9

[[related]]
a = "90901"
b = "90902"
similarity = 0.2
"""
CITY_TOML = f"""\
# {CITY_NAME}, an invented city in open sea: everything in this folder was made by packs/make_sample.py.
name = "{CITY_NAME}"
# County codes of 99 are nobody's.
code = "{CITY_CODE}"
# Working hours and the days of holidays.csv are local.
timezone = "Asia/Shanghai"
# From outermost to innermost, as in the property `level` of grid.geojson.
levels = ["county", "street", "community", "grid"]

# What holds for a source's messages that do not say it themselves.
[source.iot]
# One sigma, metres.  A fixed sensor was surveyed in; devices.csv may say better.
accuracy_m = 5
crs = "wgs84"
# How far one witness alone is believed, 0 to 1; two witnesses' odds multiply.
confidence = 0.9
# The field that names the independent reporter: two readings of one device are one witness.
witness = "device_id"

[source.video]
# A camera says where it stands; what it sees lies some way off.
accuracy_m = 50
# The video platform places its cameras on a map service's map.
crs = "gcj02"
# Video analytics err about one time in five.
confidence = 0.8
witness = "camera_id"

[source.hotline]
# A spoken address, geocoded.
accuracy_m = 120
crs = "gcj02"
# A ticket is never lost for its label: whoever takes it up finds the right one.
fallback_category = "90999"
confidence = 0.7
witness = "caller"

[source.patrol]
# A telephone's position between houses.
accuracy_m = 12
crs = "cgcs2000"
confidence = 0.95
witness = "worker_id"
"""
PLATFORMS_TOML = """
# ------------------------------------------------------------------------------------------------------ platforms
# Two platforms were there before this service and go on naming things their own way.  Each is read by its mapping when
# its messages come on a topic of its own (iot.readings.tingwu, video.events.tingshi) or carry its name in the Kafka
# header `platform`; on the source's topic without the header, messages are read as docs/schemas describes them.

# 汀物, the gateway of all gauges: readings and alarms in one kind of message.
#   {"msgId": 90017, "head": {"ts": 1780273800, "dev": {"code": "IOT-JS-0001", "gps": "119.951,38.752"}},
#    "data": {"item": "SW", "val": "153", "unit": "mm"}, "alarm": {"code": 101, "status": 1}}
[platform.tingwu]
source = "iot"
# Its map is a map service's, whatever [source.iot] says.
crs = "gcj02"
# Whole seconds since 1970.
time_format = "unix_s"

# Our field = where theirs is.  What is named here must be there, or the message is a dead letter that says what is
# missing; a path that ends in ? may lead to nothing.
[platform.tingwu.fields]
id = "msgId"
time = "head.ts"
device_id = "head.dev.code"
# One text with a comma; most gauges have none, for they stand in devices.csv.
lon = "head.dev.gps[0]?"
lat = "head.dev.gps[1]?"
accuracy_m = "head.dev.err?"
# A reading has no alarm, an alarm need not have a reading.
metric = "data.item?"
value = "data.val?"
unit = "data.unit?"
alarm = "alarm.code?"
state = "alarm.status?"

# What their number is multiplied by: they say centimetres, we metres.
[platform.tingwu.scale]
accuracy_m = 0.01

# Their word for a unit and what it is in ours: ours = theirs * factor + offset.  A word that stands neither here nor in
# the rules of the metric is refused: 20 mm of water are no flood.
[platform.tingwu.units]
# Of two the one that the metric's rules are in: centimetres on a road, metres in a sewer.
mm = [{ unit = "cm", factor = 0.1 }, { unit = "m", factor = 0.001 }]
kPa = { unit = "MPa", factor = 0.001 }
LEL = { unit = "%LEL" }
"mg/m3" = { unit = "ug/m3", factor = 1000 }

# Their code = our word.  A code that is not here stays as it is, so what they add tomorrow is a dead letter that
# names it, not a wrong category.
[platform.tingwu.codes.metric]
SW = "road_water_cm"
XW = "sewer_level_m"
HW = "river_level_m"
RQ = "gas_lel_pct"
YL = "pipe_pressure_mpa"
KQ = "pm25_ugm3"
ZS = "noise_db"
MY = "bin_fill_pct"

[platform.tingwu.codes.alarm]
# Many send 0 with every reading: no alarm at all.
0 = ""
101 = "road_water_high"
102 = "sewer_level_high"
103 = "river_level_high"
111 = "gas_leak"
112 = "pipe_pressure_drop"
113 = "smoke_alarm"
121 = "sewer_cover_tilt"
122 = "water_cover_tilt"
131 = "bin_full"
132 = "lamp_fault"
901 = "offline"
902 = "low_battery"

[platform.tingwu.codes.state]
0 = "cleared"
1 = "raised"

# 汀视, the platform of the video analytics: what one camera saw, in an envelope.
#   {"camera": {"gbId": "99010000001320000001"}, "events": [
#     {"eventId": "e-7", "occurTime": "2026-06-01 08:31:10", "eventCode": "0417", "score": 87, "img": ["a.jpg"]}]}
[platform.tingshi]
source = "video"
# Each record is one object around an array of messages.  Of a bad one only that one is refused.
elements = "events"
crs = "bd09"
# What its clock shows: no offset, so the time zone says how it is meant; without it the city's.
time_format = "%Y-%m-%d %H:%M:%S"
time_zone = "Asia/Shanghai"

[platform.tingshi.fields]
id = "eventId"
time = "occurTime"
# ^ starts at the envelope: it is said once for all events.
camera_id = "^camera.gbId"
event_type = "eventCode"
confidence = "score"
lon = "pos.x?"
lat = "pos.y?"
snapshot_url = "img[0]?"

# In percent.
[platform.tingshi.scale]
confidence = 0.01

[platform.tingshi.codes.event_type]
0101 = "garbage_exposed"
0102 = "bin_overflow"
0103 = "rubble_pile"
0201 = "stall_outside_shop"
0202 = "vendor"
0203 = "road_stall"
0301 = "illegal_parking"
0302 = "shared_bike"
0401 = "waterlogging"
0402 = "road_damage"
0403 = "road_collapse"
0417 = "fire_smoke"
0501 = "cover_missing"
"""
HOLIDAYS_CSV = """\
date,kind
2026-09-27,workday
2026-10-01,holiday
2026-10-02,holiday
2026-10-03,holiday
2026-10-04,holiday
2026-10-05,holiday
2026-10-06,holiday
2026-10-07,holiday
2026-10-10,workday
"""

# Kind of device: how many, prefix of id and asset, accuracy in metres, datum it is registered in, interval in s.
DEVICES = (
    ("manhole_cover", 30, "JG", 2, "wgs84", 3600),
    ("road_water", 14, "JS", 3, "wgs84", 300),
    ("sewer_level", 10, "WS", 3, "wgs84", 300),
    ("gas", 14, "RQ", 5, "wgs84", 60),
    ("smoke", 12, "YG", 5, "gcj02", 600),
    ("pipe_pressure", 8, "GW", 5, "wgs84", 300),
    ("street_lamp", 10, "LD", 5, "bd09", 3600),
    ("bin", 8, "LJ", 5, "wgs84", 1800),
    ("noise", 5, "ZS", 10, "wgs84", 300),
    ("air", 5, "KQ", 10, "wgs84", 300),
    ("river", 4, "HD", 5, "wgs84", 300),
    ("fire_lane", 6, "XF", 5, "wgs84", 600),
)
CAMERAS = 80

Node = tuple[int, int]
Block = tuple[int, int]
Ring = list[Node]


class Lattice:
    """Corners and bends of all blocks, each made once, in 1e-7 degrees."""

    def __init__(self, rng: np.random.Generator) -> None:
        jitter_m = rng.uniform(-JITTER_M, JITTER_M, (COLUMNS + 1, ROWS + 1, 2))
        self._corner: dict[Node, Node] = {}
        for i in range(COLUMNS + 1):
            for j in range(ROWS + 1):
                # The slow waves bend the streets, the jitter makes blocks of unequal size.
                x_m = (i - COLUMNS / 2) * PITCH_M + 70 * math.sin(j / 4.5) + 25 * math.sin(i / 2.0)
                y_m = (j - ROWS / 2) * PITCH_M + 60 * math.sin(i / 5.5) + 20 * math.cos(j / 2.5)
                self._corner[i, j] = to_e7(x_m + float(jitter_m[i, j, 0]), y_m + float(jitter_m[i, j, 1]))
        bend_m = rng.uniform(-BEND_M, BEND_M, (COLUMNS + 1, ROWS + 1, 2))
        self._bend: dict[tuple[Node, Node], Node] = {}
        for i in range(COLUMNS + 1):
            for j in range(ROWS + 1):
                for k, other in enumerate(((i + 1, j), (i, j + 1))):
                    if other in self._corner:
                        self._bend[(i, j), other] = self._bent(i, j, other, float(bend_m[i, j, k]))

    def _bent(self, i: int, j: int, other: Node, bend_m: float) -> Node:
        (ax, ay), (bx, by) = self._corner[i, j], self._corner[other]
        across = other[0] == i
        x, y = (ax + bx) // 2, (ay + by) // 2
        if across:
            return x + round(bend_m / METERS_A_DEGREE_LON * 1e7), y
        return x, y + round(bend_m / METERS_A_DEGREE_LAT * 1e7)

    def corner(self, i: int, j: int) -> Node:
        """The corner south-west of block (i, j)."""
        return self._corner[i, j]

    def ring(self, block: Block) -> Ring:
        """The border of a block, counter-clockwise, not closed."""
        i, j = block
        a, b, c, d = (i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)
        corner, bend = self._corner, self._bend
        return [corner[a], bend[a, b], corner[b], bend[b, c], corner[c], bend[d, c], corner[d], bend[a, d]]

    def centre(self, block: Block) -> Node:
        """The mean of a block's border points, which lies well inside it."""
        ring = self.ring(block)
        return sum(x for x, _ in ring) // len(ring), sum(y for _, y in ring) // len(ring)


def to_e7(x_m: float, y_m: float) -> Node:
    """Metres east and north of the centre as 1e-7 degrees."""
    lon_deg = CENTRE_LON_DEG + x_m / METERS_A_DEGREE_LON
    lat_deg = CENTRE_LAT_DEG + y_m / METERS_A_DEGREE_LAT
    return round(lon_deg * 1e7), round(lat_deg * 1e7)


def degrees(e7: int) -> str:
    """1e-7 degrees as decimal degrees, exactly."""
    return f"{e7 // 10_000_000}.{e7 % 10_000_000:07d}"


def outline(rings: list[Ring]) -> Ring:
    """The border of a union of blocks: the edges that no two of them share, chained.

    Raises ``ValueError`` if the union is not one piece without holes whose border touches itself nowhere.
    """
    edges = Counter((ring[k - 1], ring[k]) for ring in rings for k in range(len(ring)))
    border = [(a, b) for a, b in edges if (b, a) not in edges]
    following = dict(border)
    if len(following) != len(border):
        raise ValueError("the border touches itself")
    start = border[0][0]
    ring = [start]
    while (here := following[ring[-1]]) != start:
        ring.append(here)
    if len(ring) != len(border):
        raise ValueError("the union has holes or several parts")
    return ring


class City:
    """Which block belongs to what, and the codes and rings of every level."""

    def __init__(self) -> None:
        rng = np.random.Generator(np.random.PCG64(SEED))
        self.lattice = Lattice(rng)
        wander = np.cumsum(rng.integers(-1, 2, (ROWS, BLOCK_COLUMNS - 1)), axis=0).clip(-1, 1)
        self.community_of: dict[Block, Block] = {}
        for j in range(ROWS):
            for i in range(FIRST[j], LAST[j] + 1):
                # Borders between communities wander by a cell from row to row.
                ends = [5 * (k + 1) + int(wander[j, k]) for k in range(BLOCK_COLUMNS - 1)]
                self.community_of[i, j] = (j // BAND_ROWS, sum(i >= end for end in ends))
        self.cell_code: dict[Block, str] = {}
        self.cell_name: dict[Block, str] = {}
        self.features: list[tuple[str, str, str | None, str, Ring]] = []
        self._number()

    def _number(self) -> None:
        outer: list[tuple[str, str, str | None, str, Ring]] = []
        grid: list[tuple[str, str, str | None, str, Ring]] = []
        for index, (county_code, county_name) in enumerate(COUNTIES):
            streets = [street for street in STREETS if street[0] == index]
            county = [b for b, c in self.community_of.items() if any(c in street[3] for street in streets)]
            outer.append((county_code, "county", None, county_name, self._outline(county)))
            for _, street_digits, street_name, communities in streets:
                street_code = county_code + street_digits
                street = [b for b, c in self.community_of.items() if c in communities]
                outer.append((street_code, "street", county_code, street_name, self._outline(street)))
                for number, key in enumerate(communities, start=1):
                    code = f"{street_code}{number:03d}"
                    name = COMMUNITY_NAMES[key]
                    blocks = [b for b, c in self.community_of.items() if c == key and b not in QUAY]
                    outer.append((code, "community", street_code, name, self._outline(blocks)))
                    for cell, block in enumerate((b for b in blocks if b not in HILL), start=1):
                        self.cell_code[block] = f"{code}{cell:03d}"
                        self.cell_name[block] = f"{name}第{cell:03d}网格"
                        row = (self.cell_code[block], "grid", code, self.cell_name[block], self.lattice.ring(block))
                        grid.append(row)
        level = {"county": 0, "street": 1, "community": 2}
        self.features = sorted(outer, key=lambda feature: level[feature[1]]) + grid

    def other_layer(self) -> list[tuple[str, str, str, Ring]]:
        """Code, parent, name and ring of each cell of `OTHER_LAYER`; the parent is its middle block's community."""
        cells: list[tuple[str, str, str, Ring]] = []
        code_of = {name: code for code, level, _, name, _ in self.features if level == "community"}
        for south in range(OTHER_ROWS.start, OTHER_ROWS.stop - OTHER_SIDE + 1, OTHER_SIDE):
            for west in range(1, COLUMNS - OTHER_SIDE + 1, OTHER_SIDE):
                blocks = [(west + i, south + j) for j in range(OTHER_SIDE) for i in range(OTHER_SIDE)]
                if not all(block in self.community_of for block in blocks):
                    continue
                community = COMMUNITY_NAMES[self.community_of[west + OTHER_SIDE // 2, south + OTHER_SIDE // 2]]
                code = f"{code_of[community]}{len(cells) + 1:08d}"
                name = f"{OTHER_LAYER}第{len(cells) + 1:03d}网格"
                cells.append((code, code_of[community], name, self._outline(blocks)))
        return cells

    def _outline(self, blocks: list[Block]) -> Ring:
        return outline([self.lattice.ring(block) for block in blocks])

    def is_inland(self, i: int, j: int) -> bool:
        """Whether corner (i, j) has the city on all sides."""
        return all(block in self.community_of for block in ((i - 1, j - 1), (i, j - 1), (i - 1, j), (i, j)))

    def smallest_code_at(self, i: int, j: int) -> str:
        """The cell to which a point on corner (i, j) belongs."""
        around = [(i - 1, j - 1), (i, j - 1), (i - 1, j), (i, j)]
        return min((self.cell_code[block] for block in around if block in self.cell_code), default="")


def geojson(city: City) -> str:
    """`grid.geojson`, one feature a line."""
    lines = []
    for code, level, parent, name, ring in city.features:
        parent_json = "null" if parent is None else f'"{parent}"'
        properties = f'"code":"{code}","level":"{level}","parent":{parent_json},"name":"{name}"'
        lines.append(feature(properties, ring))
    for code, community, name, ring in city.other_layer():
        properties = f'"code":"{code}","layer":"{OTHER_LAYER}","parent":"{community}","name":"{name}"'
        lines.append(feature(properties, ring))
    return '{"type":"FeatureCollection","features":[\n' + ",\n".join(lines) + "\n]}\n"


def feature(properties: str, ring: Ring) -> str:
    """One polygon with its properties, as JSON."""
    points = ",".join(f"[{degrees(x)},{degrees(y)}]" for x, y in [*ring, ring[0]])
    geometry = f'{{"type":"Polygon","coordinates":[[{points}]]}}'
    return f'{{"type":"Feature","properties":{{{properties}}},"geometry":{geometry}}}'


def catalogue() -> str:
    """`catalogue.toml`, with the reason for each key where it is first used."""
    explained: set[str] = set()
    parts = [CATALOGUE_HEAD, MATCH]

    def line(key: str, text: str) -> str:
        why = "" if key in explained else f"# {WHY[key]}\n"
        explained.add(key)
        return f"{why}{text}\n"

    for (code, name, group, radius_m, window_s, reopen_s, priority, department, amount, unit, hotline, iot,
         video) in CATEGORIES:  # fmt: skip
        labels = {"hotline": hotline.split(), "iot": iot.split(), "video": video.split(), "patrol": [name]}
        parts.append("\n[[category]]\n")
        parts.append(line("code", f'code = "{code}"'))
        parts.append(line("name", f'name = "{name}"'))
        parts.append(line("group", f'group = "{group}"'))
        if code in PASSING:
            parts.append(line("confirm_below", "confirm_below = 0.65"))
        if code in NO_EVENT:
            parts.append(line("event", "event = false"))
            labels["patrol"] = []
        else:
            parts.append(line("radius_m", f"radius_m = {radius_m}"))
            parts.append(line("window_s", f"window_s = {window_s}"))
            parts.append(line("accuracy_cap_m", "accuracy_cap_m = 300"))
            parts.append(line("reopen_s", f"reopen_s = {reopen_s}"))
        parts.append(line("priority", f"priority = {priority}"))
        parts.append(line("department", f'department = "{department}"'))
        parts.append(line("sla", f'[category.sla]\namount = {amount}\nunit = "{unit}"'))
        if code in MISTAKEN:
            parts.append(line("confidence", "[category.confidence]\nvideo = 0.6"))
        if group in ALIKE_KM2:
            parts.append(line("alike_km2", f"[category.match]\nalike_km2 = {ALIKE_KM2[group]}"))
        table = [
            f"{source} = [" + ", ".join(f'"{w}"' for w in words) + "]" for source, words in labels.items() if words
        ]
        parts.append(line("labels", "[category.labels]\n" + "\n".join(table)))
    return "".join(parts) + RULES_AND_RELATED


def devices(city: City, rng: np.random.Generator) -> str:
    """`devices.csv`: sensors on the blocks, cameras at crossings."""
    blocks = sorted(city.community_of)
    rows: list[list[object]] = []
    for kind, count, prefix, accuracy_m, crs, interval_s in DEVICES:
        for number, k in enumerate(rng.permutation(len(blocks))[:count].tolist(), start=1):
            x, y = city.lattice.centre(blocks[k])
            east_m, north_m = rng.uniform(-35, 35, 2).tolist()
            lon, lat = in_datum(x + round(east_m * 115), y + round(north_m * 90), crs)
            asset = f"{prefix}{number:05d}"
            rows.append([f"IOT-{prefix}-{number:04d}", kind, lon, lat, crs, accuracy_m, asset, interval_s])
    # Not on the coast: a position rounded to a decimetre might fall into the sea.
    corners = [(i, j) for i in range(1, COLUMNS) for j in range(1, ROWS) if city.is_inland(i, j)]
    for number, k in enumerate(rng.permutation(len(corners))[:CAMERAS].tolist(), start=1):
        x, y = city.lattice.corner(*corners[k])
        # Two vendors, two datums; 132 in a GB/T 28181 number is a network camera.
        crs = "gcj02" if number % 4 else "wgs84"
        lon, lat = in_datum(x, y, crs)
        accuracy_m = int(rng.integers(3, 9)) * 10
        rows.append([f"99010000001320{number:06d}", "camera", lon, lat, crs, accuracy_m, f"GAN{number:05d}", 3600])
    return csv_text(["id", "kind", "lon", "lat", "crs", "accuracy_m", "asset_id", "expected_interval_s"], rows)


def places(city: City, rng: np.random.Generator) -> str:
    """`places.csv`: roads, their crossings, and what people name when they say where they stand."""
    rows: list[list[object]] = []
    for j, name in EAST_WEST_ROADS:
        corners = [city.lattice.corner(i, j) for i in range(FIRST[j], LAST[j] + 2)]
        rows.append(road(name, corners))
    for i, name in NORTH_SOUTH_ROADS:
        rows.append(road(name, [city.lattice.corner(i, j) for j in range(ROWS + 1)]))
    for j, along in EAST_WEST_ROADS:
        for i, across in NORTH_SOUTH_ROADS:
            code = city.smallest_code_at(i, j)
            if code:
                aliases = f"{along}{across}口{ALIAS_SEPARATOR}{across}与{along}交叉口{ALIAS_SEPARATOR}{across}{along}口"
                lon, lat = in_datum(*city.lattice.corner(i, j), "wgs84")
                rows.append([f"{along}与{across}交叉口", aliases, lon, lat, "wgs84", 30, code])
    for _, level, _, name, ring in city.features:
        if level == "community":
            x, y = sum(p[0] for p in ring) // len(ring), sum(p[1] for p in ring) // len(ring)
            rows.append(
                [
                    name,
                    name.removesuffix("社区") + "居委会",
                    *in_datum(x, y, "wgs84"),
                    "wgs84",
                    COMMUNITY_ACCURACY_M,
                    "",
                ]
            )
    blocks = sorted(city.cell_code)
    free = [blocks[k] for k in rng.permutation(len(blocks)).tolist()]
    # What bears a community's name lies in it.
    wanted = [
        (name, accuracy_m, [c for c, community in COMMUNITY_NAMES.items() if community.removesuffix("社区") in name])
        for names, accuracy_m in PLACES
        for name in names
    ]
    wanted += [(name, accuracy_m, [home]) for name, accuracy_m, homes in SHARED_NAMES for home in homes]
    for name, accuracy_m, homes in wanted:
        block = next(b for b in free if not homes or city.community_of[b] in homes)
        free.remove(block)
        # Taken from a map service, as most such lists are.
        lon, lat = in_datum(*city.lattice.centre(block), "gcj02")
        rows.append([name, ALIASES.get(name, ""), lon, lat, "gcj02", accuracy_m, city.cell_code[block]])
    return csv_text(["name", "aliases", "lon", "lat", "crs", "accuracy_m", "grid_code"], rows)


def road(name: str, corners: list[tuple[int, int]]) -> list[object]:
    """A road is no point: its middle corner, and how far from that its corners lie (root mean square, metres)."""
    x, y = corners[len(corners) // 2]
    squares = [
        ((u - x) / 1e7 * METERS_A_DEGREE_LON) ** 2 + ((v - y) / 1e7 * METERS_A_DEGREE_LAT) ** 2 for u, v in corners
    ]
    accuracy_m = math.ceil(math.sqrt(sum(squares) / len(squares)) / 50) * 50
    return [name, "", *in_datum(x, y, "wgs84"), "wgs84", accuracy_m, ""]


ALIAS_SEPARATOR = "|"


def in_datum(x_e7: int, y_e7: int, crs: str) -> tuple[str, str]:
    """A WGS-84 position as the datum ``crs`` has it, to 1e-6 degree, about a decimetre."""
    lon, lat = from_wgs84(x_e7 / 1e7, y_e7 / 1e7, crs)
    return f"{float(lon):.6f}", f"{float(lat):.6f}"


def csv_text(header: list[str], rows: list[list[object]]) -> str:
    """A CSV with plain newlines."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def files() -> dict[str, str]:
    """Every file of the pack, by name."""
    city = City()
    # Streams of their own: one more camera must not move a school.
    device_rng, place_rng = (np.random.Generator(np.random.PCG64([SEED, k])) for k in (1, 2))
    return {
        "city.toml": CITY_TOML + PLATFORMS_TOML,
        "grid.geojson": geojson(city),
        "catalogue.toml": catalogue(),
        "devices.csv": devices(city, device_rng),
        "places.csv": places(city, place_rng),
        "holidays.csv": HOLIDAYS_CSV,
    }


def main(folder: Path) -> None:
    """Write the pack."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "sample")
    main(parser.parse_args().folder)
