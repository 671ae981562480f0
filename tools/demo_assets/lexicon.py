"""The words of the generated text: lists by meaning, so that sentences make sense.

A word of several parts is written with underscores here and with spaces in the text.
"""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of a list, in order; none occurs twice."""
    found = tuple(word.replace("_", " ") for word in text.split())
    assert len(set(found)) == len(found), [word for word in found if found.count(word) > 1]
    return found


WORDS: dict[str, tuple[str, ...]] = {
    "month": words(
        "January February March April May June July August September October November December"
    ),
    "weekday": words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "season": words("spring summer autumn winter"),
    "colour": words(
        "red blue green yellow brown grey white black orange purple pink silver golden beige "
        "dark_green light_blue cream pale_yellow dark_red olive turquoise"
    ),
    "small_number": words("two three four five six seven eight nine ten eleven twelve"),
    "tool": words(
        "hammer saw drill chisel spanner screwdriver rake shovel spade ladder bucket brush knife "
        "file clamp wheelbarrow hoe trowel needle ruler compass lens torch rope hook crowbar vice "
        "plane tape_measure soldering_iron paint_roller axe sieve funnel pump anvil"
    ),
    "animal": words(
        "horse cow goat dog cat rabbit hen duck donkey fox badger hedgehog squirrel "
        "sparrow robin blackbird owl heron swallow stork frog toad newt lizard "
        "beetle bee butterfly moth spider snail mole otter beaver bat hawk crow magpie pigeon seal "
        "whale dolphin turtle crab lobster bear boar lynx"
    ),
    "plant": words(
        "rose tulip daisy lily poppy violet fern nettle clover thistle ivy lavender sunflower "
        "oak beech birch maple willow pine fir elm ash_tree chestnut_tree apple_tree pear_tree "
        "cherry_tree walnut_tree hazel hawthorn bramble reed"
    ),
    "fruit": words(
        "apple pear plum cherry peach apricot grape lemon orange banana melon strawberry "
        "raspberry blueberry fig quince gooseberry currant"
    ),
    "vegetable": words(
        "potato carrot onion leek cabbage turnip beetroot radish pepper tomato cucumber pumpkin "
        "courgette aubergine parsnip artichoke mushroom bean"
    ),
    "dish": words(
        "vegetable_soup potato_salad apple_cake lentil_stew rice_pudding onion_tart bean_soup "
        "fish_pie mushroom_omelette pumpkin_bread tomato_sauce plum_crumble barley_broth pancakes "
        "cheese_dumplings noodle_soup roast_chicken flat_bread carrot_cake pea_soup"
    ),
    "ingredient": words(
        "flour sugar butter salt milk cream oil rice barley honey vinegar garlic pepper cinnamon "
        "parsley thyme yeast cheese yoghurt mustard oats lentils almonds raisins"
    ),
    "drink": words("tea coffee water milk juice lemonade cider cocoa broth apple_juice mint_tea"),
    "garment": words(
        "coat jacket shirt jumper scarf hat cap skirt dress apron belt cloak waistcoat cardigan "
        "raincoat glove sock boot shoe sandal"
    ),
    "vehicle": words(
        "bus train tram bicycle car van lorry tractor boat ferry barge canoe motorbike taxi "
        "cart sledge"
    ),
    "furniture": words(
        "table chair bench cupboard shelf desk bed sofa stool wardrobe chest mirror lamp carpet "
        "cabinet bookcase armchair cradle"
    ),
    "building": words(
        "school library station hospital museum theatre town_hall factory mill bakery church "
        "hotel warehouse bridge tower lighthouse stable barn workshop post_office market_hall "
        "cinema swimming_pool observatory greenhouse"
    ),
    "shop": words(
        "bakery bookshop pharmacy butcher grocer hardware_shop shoe_shop flower_shop toy_shop "
        "music_shop tailor ironmonger fishmonger"
    ),
    "room": words(
        "kitchen bedroom bathroom hall attic cellar study living_room dining_room pantry "
        "corridor office laundry"
    ),
    "place": words(
        "park square river_bank forest beach meadow hill lake valley garden harbour street "
        "market island canal quarry orchard vineyard field moor"
    ),
    "material": words(
        "wood iron steel copper glass stone clay brick wool cotton linen leather paper plastic "
        "silk brass concrete rubber cork tin slate marble wax straw"
    ),
    "job": words(
        "teacher doctor nurse baker carpenter farmer driver engineer gardener painter plumber "
        "electrician librarian waiter cook tailor mechanic printer weaver potter miller mason "
        "surveyor chemist biologist historian translator journalist photographer architect "
        "musician actor lawyer judge pilot sailor postman fisherman watchmaker bookbinder"
    ),
    "hobby": words(
        "chess swimming painting gardening hiking cycling knitting fishing photography baking "
        "rowing skating birdwatching pottery running sailing embroidery woodwork climbing "
        "stamp_collecting"
    ),
    "subject": words(
        "history geography biology chemistry physics mathematics music drawing literature "
        "astronomy geology botany economics law medicine philosophy grammar"
    ),
    "weather": words("rain snow fog wind sunshine frost hail drizzle thunder sleet mist cloud"),
    "weather_adjective": words(
        "cold warm wet dry windy foggy sunny cloudy mild hot cool rainy stormy calm icy humid"
    ),
    "size": words("small large tiny huge long short wide narrow tall low thick thin deep shallow"),
    "quality": words(
        "good old new clean plain simple strong useful heavy light cheap solid soft hard smooth "
        "rough round square dry fresh common rare famous local modern ancient quiet busy bright "
        "dark steady careful tidy empty full broken warm cold sharp flat wooden"
    ),
    "feeling": words(
        "happy tired hungry calm worried proud curious bored pleased surprised nervous sad "
        "relieved patient content grateful angry cheerful lonely thirsty"
    ),
    "trait": words(
        "patient careful honest friendly quiet cheerful strict generous punctual curious polite "
        "practical modest stubborn gentle thorough"
    ),
    "manner": words(
        "slowly quickly carefully quietly loudly gently early late together alone easily neatly "
        "calmly politely suddenly regularly often rarely patiently"
    ),
    "relation": words(
        "brother sister mother father aunt uncle cousin neighbour friend grandmother grandfather "
        "colleague teacher daughter son niece nephew"
    ),
    "object": words(
        "book letter key clock box basket bottle cup plate spoon bag umbrella photograph map coin "
        "newspaper candle blanket pillow towel pencil notebook parcel ticket bell ring watch purse "
        "suitcase jar teapot kettle bowl vase picture postcard calendar diary radio telephone "
        "camera telescope puzzle kite ball doll whistle button ribbon"
    ),
    "instrument": words(
        "piano guitar violin cello flute clarinet trumpet trombone harp drums double_bass organ "
        "accordion oboe saxophone mandolin banjo viola bassoon harmonica marimba vibraphone "
        "synthesizer electric_guitar bass_guitar hand_drums glockenspiel electric_piano "
        "acoustic_guitar drum_machine tambourine french_horn string_quartet choir sitar lute "
        "ukulele dulcimer zither theremin"
    ),
    "genre": words(
        "jazz folk rock pop blues soul ambient techno house classical chamber_music country "
        "reggae funk disco bossa_nova tango swing synth_pop indie_rock dream_pop trip_hop "
        "minimal_techno post_rock modern_classical bluegrass gospel dub fado calypso hip_hop "
        "drum_and_bass electronica lounge bebop art_rock"
    ),
    "mood": words(
        "calm wistful bright tense playful solemn tender restless dreamy warm melancholy hopeful "
        "lonely cheerful brooding serene nostalgic urgent sleepy gentle proud mysterious bitter "
        "joyful weary defiant patient uneasy sunny hushed"
    ),
    "listening": words(
        "late_night_drive morning_coffee rainy_afternoon long_train_ride cooking_dinner "
        "reading_by_the_window evening_walk Sunday_breakfast studying night_shift "
        "quiet_evening_at_home first_snow working_alone waiting_room autumn_walk washing_up "
        "long_flight empty_office sleepless_night early_bus summer_evening bicycle_ride "
        "writing_letters packing_boxes"
    ),
    "unit": words("metres kilometres kilograms litres hours minutes days weeks"),
    "event": words(
        "meeting concert lesson market fair exhibition lecture match dinner wedding race parade "
        "auction workshop reading festival"
    ),
    "abstract": words(
        "patience time order work rest trade travel memory language light sound friendship trust "
        "health learning practice silence progress"
    ),
}
"""Lists by name; `grammar.Pen.write` draws from them for every slot that is no given fact."""
