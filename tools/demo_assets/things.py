"""Plain knowledge: what common things are, what they are for, and how common tasks are done."""

from __future__ import annotations

_THINGS = """
hammer|a tool|driving nails into wood|a workshop
saw|a tool|cutting wood or metal|a workshop
ladder|a frame with steps|reaching high places|a shed
needle|a thin pointed tool|sewing cloth|a sewing box
compass|an instrument|finding north|a ship
ruler|a flat strip with marks|measuring short lengths|a school bag
bucket|an open container|carrying water or sand|a garden
broom|a brush with a long handle|sweeping floors|a cupboard
kettle|a metal vessel|boiling water|a kitchen
oven|a closed hot chamber|baking and roasting|a kitchen
refrigerator|a cold cabinet|keeping food fresh|a kitchen
candle|a stick of wax with a wick|giving light|a drawer
lamp|a source of light|lighting a room|a table
umbrella|a folding cover|keeping off the rain|a hall
telescope|an optical instrument|looking at distant objects|an observatory
microscope|an optical instrument|looking at very small things|a laboratory
thermometer|an instrument|measuring temperature|a hospital
clock|a machine|showing the time|a wall
calendar|a list of days|planning the year|an office
map|a drawing of an area|finding the way|a car
bridge|a structure|crossing a river or a road|a town
lighthouse|a tower with a strong light|guiding ships at night|the coast
harbour|a sheltered place by the sea|keeping ships safe|the coast
canal|a waterway made by people|moving boats and water|flat country
library|a building with many books|reading and borrowing books|a town
museum|a building with collections|showing old or valuable things|a city
hospital|a building|treating sick people|a city
bakery|a shop|making and selling bread|a high street
school|a place|teaching children|every town
bicycle|a vehicle with two wheels|travelling by pedalling|a street
train|a line of connected carriages|carrying people and goods on rails|a station
ferry|a boat|carrying people across water|a port
tractor|a strong vehicle|pulling machines on farms|a farm
telephone|a device|talking over a distance|a house
camera|a device|taking photographs|a bag
radio|a device|receiving sound from far away|a kitchen
battery|a store of electric energy|powering small devices|a torch
engine|a machine|turning fuel into motion|a car
pump|a machine|moving water or air|a well
lock|a device|keeping a door closed|a door
key|a small piece of metal|opening a lock|a pocket
rope|a thick strong cord|tying and pulling things|a boat
basket|a woven container|carrying shopping|a market
bottle|a narrow container|holding liquids|a shelf
blanket|a large warm cloth|keeping warm in bed|a bedroom
pillow|a soft cushion|resting the head|a bed
towel|a thick cloth|drying the skin|a bathroom
soap|a solid or liquid cleaner|washing hands and clothes|a bathroom
mirror|a piece of coated glass|seeing oneself|a bathroom
wallet|a small flat case|holding money and cards|a pocket
envelope|a folded paper cover|sending letters|a desk
stamp|a small piece of printed paper|paying for post|an envelope
pencil|a writing tool|drawing and writing|a school bag
dictionary|a book of words|looking up meanings|a library
newspaper|a printed paper|reading the news|a shop
notebook|a book of blank pages|writing things down|a desk
greenhouse|a building of glass|growing plants in cold weather|a garden
spade|a tool with a flat blade|digging the ground|a garden
sieve|a bowl with small holes|separating lumps from flour|a kitchen
scale|an instrument|weighing things|a shop
piano|a musical instrument with keys|playing melodies and chords|a concert hall
violin|a musical instrument with four strings|playing melodies with a bow|an orchestra
drum|a musical instrument|keeping the rhythm|a band
flute|a wind instrument|playing high melodies|an orchestra
guitar|a musical instrument with six strings|accompanying songs|a music shop
metronome|a device|marking a steady tempo|a music room
microphone|a device|turning sound into a signal|a studio
helmet|a hard hat|protecting the head|a building site
glove|a garment for the hand|keeping the hand warm|a coat pocket
scarf|a long piece of cloth|keeping the neck warm|a hall
tent|a shelter of cloth|sleeping outdoors|a campsite
anchor|a heavy metal hook|holding a ship in place|a ship
sail|a large piece of cloth|catching the wind|a boat
windmill|a mill turned by the wind|grinding grain|flat country
well|a deep hole|getting water from the ground|a village
fence|a barrier of wood or wire|keeping animals in a field|a farm
hive|a box for bees|keeping bees and collecting honey|an orchard
plough|a farm tool|turning the soil|a field
elevator|a moving cabin|travelling between floors|a tall building
vaccine|a medicine|preventing a disease|a clinic
bandage|a strip of cloth|covering a wound|a first aid box
magnet|a piece of iron or alloy|attracting iron|a workshop
"""

THINGS: tuple[tuple[str, str, str, str], ...] = tuple(
    (parts[0], parts[1], parts[2], parts[3])
    for parts in (line.split("|") for line in _THINGS.strip().splitlines())
)
"""(noun, what it is, what it is used for, where it is found)."""

_TASKS = """
boil an egg|Put the egg in a small pot.|Cover it with cold water.|Bring the water to the boil.|Let it cook for eight minutes.|Cool the egg under cold water.
make a cup of tea|Fill the kettle with fresh water.|Boil the water.|Put a tea bag in a cup.|Pour the water over it.|Wait four minutes and take out the bag.
plant a tree|Choose a place with enough light.|Dig a hole twice as wide as the roots.|Set the tree upright in the hole.|Fill the hole with soil.|Water the tree well.
paint a wall|Cover the floor with old sheets.|Clean the wall and let it dry.|Tape the edges.|Paint from the top to the bottom.|Add a second coat after a few hours.
clean a window|Mix warm water with a little soap.|Wash the glass with a soft cloth.|Rinse it with clean water.|Dry it with a rubber blade.|Wipe the edges with paper.
repair a flat tyre|Take the wheel off the bicycle.|Remove the inner tube.|Find the hole under water.|Dry the tube and glue a patch on it.|Put the tube back and pump it up.
cook rice|Rinse the rice in cold water.|Add two cups of water for each cup of rice.|Bring it to the boil.|Cover the pot and lower the heat.|Let it rest for ten minutes.
write a letter|Put the date at the top.|Greet the reader by name.|Say in one sentence why you write.|Give the details in short paragraphs.|Close politely and sign it.
learn a song|Listen to the song several times.|Read the words aloud.|Practise one line at a time.|Join the lines slowly.|Sing the whole song from memory.
tune a guitar|Start with the lowest string.|Play the string and listen to the pitch.|Turn the peg until it matches.|Go on to the next string.|Check all the strings again.
wash a jumper|Fill a basin with cool water.|Add a little mild soap.|Press the jumper gently in the water.|Rinse it twice.|Dry it flat on a towel.
pack a suitcase|Make a list of what you need.|Put heavy things at the bottom.|Roll the clothes.|Fill the shoes with socks.|Keep your papers on top.
bake bread|Mix flour, water, salt and yeast.|Knead the dough for ten minutes.|Let it rise for an hour.|Shape the loaf.|Bake it until the crust is brown.
sharpen a pencil|Hold the sharpener over a bin.|Put the pencil into the hole.|Turn it slowly.|Stop when the point is sharp.|Wipe off the dust.
read a map|Find north on the map.|Look for your own position.|Choose the place you want to reach.|Follow the roads between them.|Use the scale to measure the distance.
water house plants|Feel the soil with a finger.|Use water at room temperature.|Pour slowly around the stem.|Let the rest run out.|Empty the saucer after an hour.
light a stove|Open the air vent.|Lay paper and thin sticks.|Light the paper.|Add larger pieces of wood.|Close the door when the fire burns well.
prepare for an exam|Find out what will be asked.|Divide the work into small parts.|Study a little every day.|Test yourself without the book.|Sleep well the night before.
sew on a button|Thread a needle and tie a knot.|Place the button on the cloth.|Pass the needle through each hole several times.|Wind the thread under the button.|Tie it off and cut the thread.
make a soup|Cut the vegetables into small pieces.|Fry an onion in a little oil.|Add the vegetables and hot water.|Cook everything for half an hour.|Season it with salt and pepper.
borrow a book|Register at the desk.|Search for the title in the catalogue.|Take the book from the shelf.|Show your card at the desk.|Return the book before the date.
save electricity|Switch off lights in empty rooms.|Use a lid when you cook.|Wash clothes in cool water.|Unplug devices you do not use.|Choose lamps that need little power.
clean a bicycle|Brush off the dry mud.|Wash the frame with warm water.|Clean the chain with an old cloth.|Dry all the parts.|Put a little oil on the chain.
hang a picture|Choose the height.|Mark the place with a pencil.|Check that the mark is level.|Drive a nail into the wall.|Hang the picture and step back.
"""  # noqa: E501

TASKS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (parts[0], tuple(parts[1:]))
    for parts in (line.split("|") for line in _TASKS.strip().splitlines())
)
"""(task as an infinitive, its steps in order)."""
