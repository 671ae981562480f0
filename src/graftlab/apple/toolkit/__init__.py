"""`graftlab toolkit WORD`: what Apple's adapter toolkit is told, said to graftlab.

    python -m examples.train_adapter --train-data F --pack-sequences
    graftlab toolkit   train-adapter --train-data F --pack-sequences
    graftlab train model=afm-3b lora=afm-r32 data=jsonl data.train=F packing=best-fit ...

The third line is printed, copyable, and then run as if it had been typed.

table      every word with its flags, and what each is here
flags      what the table is made of
more       words that depend on several flags, or on what lies on the disk
read       a command line into values, all mistakes told at once
places     where the toolkit's assets are, and which adapter a checkpoint's name means
helps      what --help and completion say
answer     translate, print, run
"""
