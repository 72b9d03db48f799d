def show(dirs):
    print("TABLE", dirs)
